"""The augmentation of EDM: what each change does, how often it is drawn, and what the network is told."""

from math import pi

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pipeline_lib.diffusion.noise import Noise
from pipeline_lib.diffusion.streams import Stream
from pipeline_lib.objectives import Batch
from pipeline_lib.objectives._augment import SYM6, Change, apply, draw, warp

SIDE = 16


def images(count: int = 1, channels: int = 2) -> Tensor:
    return Noise(0).normal(Stream.NOISE, torch.arange(count), 0, (channels, SIDE, SIDE))


def smooth() -> Tensor:
    x, y = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
    return (torch.sin(0.35 * x + 0.2) * torch.cos(0.25 * y) + 0.02 * x)[None, None]


def change(**values: float) -> Change:
    names = ("flip_x", "flip_y", "scale", "angle", "stretch", "axis", "shift_x", "shift_y")
    return Change(**{name: torch.tensor([values.get(name, 0.0)]) for name in names})


def test_the_filter_is_orthonormal_to_its_even_shifts() -> None:
    taps = np.array(SYM6)
    assert taps.sum() == pytest.approx(np.sqrt(2))
    products = [taps[2 * k :] @ taps[: len(taps) - 2 * k] for k in range(6)]
    assert products == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-9)


def test_nothing_changes_nothing() -> None:
    x = images()
    assert torch.equal(apply(x, change()), x)
    still = torch.eye(2)[None], torch.zeros(1, 2)
    assert torch.allclose(warp(x, *still), x, atol=1e-5)


def test_flips() -> None:
    x = images()
    assert torch.equal(apply(x, change(flip_x=1)), x.flip(3))
    assert torch.equal(apply(x, change(flip_y=1)), x.flip(2))


def test_shifts_are_in_eighths_of_the_image_to_the_right_and_down() -> None:
    x = images()
    right, down = apply(x, change(shift_x=1)), apply(x, change(shift_y=1))
    assert torch.allclose(right[..., 6:-4], x[..., 4:-6], atol=1e-4)
    assert torch.allclose(down[..., 6:-4, :], x[..., 4:-6, :], atol=1e-4)
    assert torch.allclose(right[..., :2], x[..., 1:3].flip(-1), atol=1e-4)  # the edge mirrors


def test_a_quarter_turn() -> None:
    """Pixels are read a quarter turn clockwise from where they go, so the image turns the other way."""
    x = smooth()
    left, right = (apply(x, change(angle=angle)) for angle in (pi / 2, -pi / 2))
    assert torch.allclose(left, torch.rot90(x, 1, (2, 3)), atol=0.04)
    assert torch.allclose(right, torch.rot90(x, -1, (2, 3)), atol=0.04)
    assert float((left - right).abs().max()) > 0.5


@pytest.mark.parametrize(
    "values",
    [
        {"scale": 1.0},
        {"scale": -0.7, "angle": 0.5},
        {"stretch": 1.2},
        {"stretch": 0.8, "axis": 0.7},
        {"scale": 0.6, "angle": -2.0, "stretch": -0.5, "axis": 1.9, "shift_x": 0.4, "shift_y": -0.8},
    ],
)
def test_it_is_an_affine_change_of_the_plane(values: dict[str, float]) -> None:
    """Against cubic splines of scipy on a smooth image, away from edges; the matrix is made here of its parts."""

    def turn(angle: float) -> np.ndarray:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    size, long = 2 ** (0.2 * values.get("scale", 0)), 2 ** (0.2 * values.get("stretch", 0))
    axis, angle = values.get("axis", 0), values.get("angle", 0)
    forward = turn(-axis) @ np.diag([long, 1 / long]) @ turn(axis) @ turn(-angle) * size  # of a point of the image
    moved = np.array([values.get("shift_x", 0), values.get("shift_y", 0)]) * SIDE / 8
    back, middle = np.linalg.inv(forward), (SIDE - 1) / 2
    swap = np.array([[0, 1], [1, 0]])  # scipy counts rows first
    matrix, offset = swap @ back @ swap, swap @ (-back @ moved + middle) - swap @ back @ np.array([middle, middle])
    found = apply(smooth(), change(**values))[0, 0].numpy()
    expected = ndimage.affine_transform(smooth()[0, 0].numpy(), matrix, offset, order=3, mode="mirror")
    assert float(np.abs(found - expected)[4:-4, 4:-4].max()) < 0.03


def test_labels_say_what_was_done() -> None:
    """In the order of the released code."""
    told = change(flip_x=1, scale=0.3, angle=0.5, stretch=2.0, axis=1.0, shift_y=-0.7).labels[0]
    cos, sin = np.cos(1.0), np.sin(1.0)
    expected = [1, 0, 0.3, np.cos(0.5) - 1, np.sin(0.5), 2 * cos, 2 * sin, 0, -0.7]
    assert told.numpy() == pytest.approx(expected, abs=1e-6)


def batch(count: int, step: int = 0) -> Batch:
    return Batch(images(1).expand(count, -1, -1, -1), None, torch.arange(count), step, None, Noise(1))


def test_changes_are_drawn_as_often_as_asked_for() -> None:
    found = draw(batch(20_000), 0.12)
    shares = {name: float((getattr(found, name) != 0).float().mean()) for name in vars(found)}
    expected = dict.fromkeys(shares, 0.12) | {"flip_x": 0.5, "flip_y": 0.06, "axis": 0.5}
    assert shares == pytest.approx(expected, abs=0.015)
    assert bool(((found.shift_x != 0) == (found.shift_y != 0)).all())
    drawn = found.scale[found.scale != 0]
    assert float(drawn.std()) == pytest.approx(1, abs=0.06)
    assert float(found.angle.abs().max()) == pytest.approx(pi, abs=0.05)
    told = found.labels
    pairs = torch.corrcoef(told.T) - torch.eye(9)
    assert float(pairs.abs().max()) < 0.05


def test_changes_depend_on_step_and_place_alone() -> None:
    whole, drawn = draw(batch(50), 0.5).labels, batch(50)
    part = Batch(drawn.x0[7:9], None, drawn.index[7:9], 0, None, drawn.noise)
    assert torch.equal(draw(part, 0.5).labels, whole[7:9])
    assert not torch.equal(draw(batch(50, 1), 0.5).labels, whole)
    together = apply(drawn.x0, draw(drawn, 0.5))[7:9]
    assert torch.allclose(together, apply(part.x0, draw(part, 0.5)), atol=1e-5)
