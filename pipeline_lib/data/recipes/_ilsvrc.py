"""ImageNet ILSVRC 2012 in class folders, `<split>/n01440764/n01440764_10026.JPEG`, resized as guided-diffusion does."""

from pathlib import Path

from pipeline_lib.data.recipes import Official, Source
from pipeline_lib.data.recipes._files import ImageFiles, check_count, class_labels, folder_of, from_images
from pipeline_lib.exits import BadData

COUNTS = {"train": 1_281_167, "val": 50_000}
BYTES = {"train": 147_897_477_120, "val": 6_744_924_160}  # ILSVRC2012_img_train.tar and _val.tar
LICENCE = "non-commercial research and education only (ImageNet's terms of access)"


def tree_size(split: str, side: int) -> Official:
    """As published."""
    return Official(COUNTS[split], (3, side, side), BYTES[split], BYTES[split], "memory")


def tree_signature(options: ImageFiles, split: str) -> str:
    """Of all images."""
    from pipeline_lib.data.folders import signature_below

    return signature_below(folder_of(options.path, split))


def prepare_tree(options: ImageFiles, split: str, folder: Path, side: int) -> Source:
    """Images uint8 (N,3,side,side) in the order of class and name, labels by rank of the WordNet id; raises BadData."""
    from pipeline_lib.data.decode import Geometry
    from pipeline_lib.data.folders import by_class
    from pipeline_lib.data.images import Files

    root = folder_of(options.path, split)
    names = by_class(root)
    labels, classes = class_labels(names)
    if labels is None:
        raise BadData(f"the images in {root} lie in no class folders; put each into one named after its WordNet id.")
    check_count(len(names), options, COUNTS[split], root)
    about = {
        "source": "ImageNet ILSVRC 2012",
        "split": split,
        "licence": LICENCE,
        "size": f"halved by 2x2 means while the short side is at least {2 * side}, short side to {side} (Pillow's "
        "bicubic filter, antialiased; small images are enlarged), centre cropped",
    }
    geometry = Geometry(side, resize="halving")
    return from_images(Files(str(root)), names, geometry, folder, options.on_damaged, about, labels, classes)
