"""torchvision beside a CPU build of torch."""

import importlib

import pytest
import torch

from pipeline_lib.scores import _torchvision


def test_it_can_be_ensured_twice() -> None:
    _torchvision.ensure()
    _torchvision.ensure()
    from torchvision.transforms.functional import to_pil_image

    assert to_pil_image(torch.zeros(3, 2, 2, dtype=torch.uint8)).size == (2, 2)


def test_other_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision.ensure()
