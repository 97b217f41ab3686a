"""Makes torchvision importable beside a CPU build of torch.

Its compiled part may want the CUDA libraries of torch. Where they are missing it stays away silently, and the import
then fails at the first operator that nobody declared. Image code in Python, which is all that torch-fidelity uses,
needs none of these operators, so declaring their signatures is enough.
"""

import importlib
import sys

import torch

UNDECLARED = ("nms", "qnms")
_library: torch.library.Library | None = None  # declarations live as long as this object


def ensure() -> None:
    """Import torchvision; call it before anything that imports torchvision by itself.

    Operators are declared only after a plain import has failed for want of them: declared twice, they abort the
    process.
    """
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _library is not None or "operator torchvision::nms does not exist" not in str(error):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]  # half imported
        _library = torch.library.Library("torchvision", "DEF")
        for operator in UNDECLARED:
            _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
