"""CelebA-HQ 256x256 as in latent diffusion, from a folder of its images of 1024x1024 or smaller ones."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes import _faces as faces
from pipeline_lib.data.recipes._files import ImageFiles, folder_of

FOLDER = "CelebA-HQ-img"
COUNT = 30_000


class Options(ImageFiles):
    """`path` holds CelebA-HQ-img (of CelebAMask-HQ), or is a folder of square images; 256x256 are taken as they are."""

    resize: faces.Resize = "cv2"


def official(options: Options) -> Official:
    """As published in CelebAMask-HQ."""
    return Official(COUNT, (3, 256, 256), 3_150_000_000, 3_150_000_000, "memory", labels=False)


def signature(options: Options) -> str:
    """Of all images."""
    from pipeline_lib.data.folders import signature_below

    return signature_below(folder_of(options.path, FOLDER))


def prepare(options: Options, folder: Path) -> Source:
    """Images uint8 (N,3,256,256) in the order of their numbers; raises BadData."""
    from pipeline_lib.data.images import Files

    about = {
        "source": "CelebA-HQ (Karras et al., 2018)",
        "split": "all",
        "licence": "non-commercial research only, as CelebA",
        "size": f"256x256; larger images resized {faces.HOW_256[options.resize]}",
    }
    geometry, root = faces.to_256(options.resize), folder_of(options.path, FOLDER)
    return faces.numbered(Files(str(root)), root, options, COUNT, slice(None), geometry, folder, about)
