"""Further extractors of torch-fidelity, DINOv2 and CLIP, where their weights lie in torch.hub's cache already."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline_lib.exits import BadData
from pipeline_lib.records.files import sha256
from pipeline_lib.scores import _torchvision
from pipeline_lib.scores.extractors import GREY, Extractor


@dataclass(frozen=True)
class Pretrained:
    """File of the weights in the cache's folder `checkpoints`, its sha256 where the publisher names it, and so on.

    `code` is a folder of the cache that torch.hub takes the network's own code from; '' where torch-fidelity has it.
    """

    file: str
    dim: int
    layer: str
    side: int
    sha: str = ""
    code: str = ""


_DINOV2 = "facebookresearch_dinov2_main"
_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
KNOWN = {
    "dinov2-vit-s-14": Pretrained("dinov2_vits14_pretrain.pth", 384, "dinov2", 224, code=_DINOV2),
    "dinov2-vit-b-14": Pretrained("dinov2_vitb14_pretrain.pth", 768, "dinov2", 224, code=_DINOV2),
    "dinov2-vit-l-14": Pretrained("dinov2_vitl14_pretrain.pth", 1024, "dinov2", 224, code=_DINOV2),
    "clip-vit-b-32": Pretrained(f"clip-vit-b-32-{_B32}.pt", 512, "clip", 224, sha=_B32),
    "clip-vit-l-14": Pretrained(f"clip-vit-l-14-{_L14}.pt", 768, "clip", 224, sha=_L14),
}


def weights(name: str) -> Path | None:
    """The file of an extractor's weights; None where it or the code is not there.

    Raises BadData where the file is not the published one.
    """
    about, hub = KNOWN[name], Path(torch.hub.get_dir())
    path = hub / "checkpoints" / about.file
    if not path.is_file() or not (hub / about.code).is_dir():
        return None
    if about.sha and sha256(path) != about.sha:
        raise BadData(f"{path} does not hold the published weights of {name} (another sha256); remove it.")
    return path


def missing(name: str) -> str:
    """Why an extractor cannot be used."""
    about = KNOWN[name]
    code = f" and the folder {about.code}" if about.code else ""
    return f"the weights of {name} are not on this machine: put checkpoints/{about.file}{code} into torch.hub's cache."


def load(name: str, path: Path, channels: int, device: torch.device) -> Extractor:
    """The extractor, for grey or RGB images."""
    _torchvision.ensure()
    from torch_fidelity.utils import create_feature_extractor

    about = KNOWN[name]
    given = {} if about.code else {"feature_extractor_weights_path": str(path)}
    network = create_feature_extractor(name, [about.layer], cuda=False, verbose=False, **given).to(device)
    return Extractor(
        name=name,
        sha=sha256(path),
        dim=about.dim,
        resize=f"TF1 bilinear to {about.side}x{about.side}",
        library=f"torch-fidelity {version('torch-fidelity')} (features)",
        network=lambda images: network(images.expand(-1, 3, -1, -1))[0],
        device=device,
        batch=64,
        note=GREY if channels == 1 else "",
    )
