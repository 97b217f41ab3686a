"""`python -m pipeline_lib.scores.bench [D]`: a Frechet distance timed beside scipy's and torch-fidelity's."""

import sys
import time
from collections.abc import Callable

import torch
from scipy.linalg import sqrtm

from pipeline_lib.scores import _torchvision, frechet


def features(count: int, dim: int, seed: int) -> torch.Tensor:
    """Correlated features float32 (count, dim) with a spectrum that falls, as that of Inception's does."""
    random = torch.Generator().manual_seed(seed)
    turn = torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)) / dim**0.5
    scales = torch.arange(1, dim + 1) ** -0.5
    return (torch.randn(count, dim, generator=random) * scales) @ turn + 0.01 * seed


def timed(compute: Callable[[], float]) -> tuple[float, float]:
    """(value, seconds)."""
    start = time.perf_counter()
    value = compute()
    return value, time.perf_counter() - start


def main(dim: int) -> None:
    """Print a line for each implementation."""
    _torchvision.ensure()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    x, y = (frechet.moments_of(features(2 * dim, dim, seed)) for seed in (1, 2))
    s_x, s_y, m_x, m_y = (a.numpy() for a in (x.covariance, y.covariance, x.mean, y.mean))
    stats = {"mu": m_x, "sigma": s_x}, {"mu": m_y, "sigma": s_y}
    half, once = frechet.root(x.covariance), timed(lambda: float(frechet.root(x.covariance)[0, 0]))[1]
    gap = float((m_x - m_y) @ (m_x - m_y)) + float(s_x.trace() + s_y.trace())
    ways = {
        "symmetric, root kept": lambda: frechet.distance(x, y, half),
        "torch-fidelity": lambda: float(fid_statistics_to_metric(*stats, False)[KEY_METRIC_FID]),
        "scipy sqrtm": lambda: gap - 2 * float(sqrtm(s_x @ s_y).real.trace()),
    }
    print(f"D = {dim}, {torch.get_num_threads()} threads; the root of a reference, once: {once:.2f} s", flush=True)
    value, seconds = timed(ways["symmetric, root kept"])
    for name, way in ways.items():
        theirs, took = timed(way)
        apart = abs(theirs / value - 1)
        print(f"{name:22} {took:7.2f} s  {took / seconds:6.1f} x  relative difference {apart:.1e}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2048)
