"""Published scores, as far as they are known, and how sure we are of each.

A tag says where a number comes from: *found* in a source that was read, or *memory*, recollected and not seen (with a
confidence). What is not known of a protocol is None, and nothing is compared on it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

INCEPTION = "inception-v3-compat"  # torch-fidelity's port of the TensorFlow Inception of 2015-12-05


@dataclass(frozen=True)
class Protocol:
    """How a score was measured: reference set, feature extractor, generated images, sampler, network calls an image."""

    recipe: str | None = None  # the data recipe that prepares the images as they were
    split: str | None = None
    reference_images: int | None = None
    extractor: str | None = None
    samples: int | None = None
    sampler: str | None = None
    nfe: int | None = None


@dataclass(frozen=True)
class Published:
    """One number of a table: FID of a row on a dataset. The recipes of a dataset carry its name in front of theirs."""

    paper: str
    table: str
    label: str
    dataset: str
    value: float
    tag: str  # found, or memory with its confidence
    protocol: Protocol
    metric: str = "FID"

    @property
    def found(self) -> bool:
        """Whether the number was read in a source."""
        return self.tag.startswith("found")


PAPER = "Li and van der Schaar (2024)"
DATASETS = ("cifar10", "imagenet32", "celeba64")
UNKNOWN = Protocol()  # neither text nor reviews say extractor, images, sampler or calls; the crop of CelebA is unknown

# Its row is copied from the first version of Ning et al. (2023, Table of T' = 1000), so it has the protocol of that:
# the evaluator of guided-diffusion, all training images, 50,000 samples, every step of the chain.
_COPIED: dict[str, Any] = {
    "split": "train",
    "extractor": INCEPTION,
    "samples": 50_000,
    "sampler": "ancestral",
    "nfe": 1000,
}
ADM_IP = {
    "cifar10": Protocol(recipe="cifar10", reference_images=50_000, **_COPIED),
    "imagenet32": Protocol(**_COPIED),  # which of the two downsampled ImageNets is not known
    "celeba64": Protocol(recipe="celeba64-ddpmip", reference_images=50_000, **_COPIED),
}


def _row(
    table: str, label: str, values: Mapping[str, float], tag: str, protocols: Mapping[str, Protocol] | None = None
) -> list[Published]:
    known = protocols or {}
    return [Published(PAPER, table, label, d, v, tag, known.get(d, UNKNOWN)) for d, v in values.items()]


def _table1(
    label: str, values: Iterable[float], tag: str, protocols: Mapping[str, Protocol] | None = None
) -> list[Published]:
    return _row("Table 1", label, dict(zip(DATASETS, values, strict=True)), tag, protocols)


def _table2(label: str, cifar10: float, celeba64: float) -> list[Published]:
    return _row("Table 2", label, {"cifar10": cifar10, "celeba64": celeba64}, "memory, low")


INPUT_PERTURBATION = "Ning et al. (2023)"
T3 = ("cifar10", "imagenet32", "lsun-tower64", "celeba64", "ffhq128")
_IP: dict[str, Any] = {"extractor": INCEPTION, "samples": 50_000, "sampler": "ancestral"}
TABLE_3 = {  # reference sets: all training images of CIFAR-10, ImageNet 32x32 and FFHQ, a random 50,000 of the others
    "cifar10": Protocol(recipe="cifar10", split="train", reference_images=50_000, **_IP),
    "imagenet32": Protocol(recipe="imagenet32", split="train", reference_images=1_281_167, **_IP),
    "lsun-tower64": Protocol(recipe="lsun-tower64", split="train", reference_images=50_000, **_IP),
    "celeba64": Protocol(split="train", reference_images=50_000, **_IP),  # the repository tells of two preparations
    "ffhq128": Protocol(recipe="ffhq128", split="train", reference_images=70_000, **_IP),
}


def _table3(label: str, by_calls: Mapping[int, Iterable[float]]) -> list[Published]:
    """FID of a row of Table 3 of the ICML version, at each number of steps."""
    return [
        Published(INPUT_PERTURBATION, "Table 3", label, d, v, "found", replace(TABLE_3[d], nfe=nfe))
        for nfe, values in by_calls.items()
        for d, v in zip(T3, values, strict=True)
    ]


KARRAS, XU = "Karras et al. (2022)", "Xu et al. (2023)"
# The least of three evaluations of 50,000 samples each, as the released commands advise: a mean lies above it.
HEUN = Protocol("cifar10", "train", 50_000, INCEPTION, 50_000, "edm", 35)


def _cifar10(paper: str, table: str, label: str, value: float) -> list[Published]:
    return [Published(paper, table, f"{label}, least of three", "cifar10", value, "found", HEUN)]


ROWS: dict[str, list[Published]] = {
    "ning2023/table3/adm": _table3(
        "ADM",
        {
            1000: (2.99, 3.60, 3.39, 1.60, 9.65),
            300: (2.95, 3.58, 3.31, 1.82, 9.55),
            100: (3.37, 4.26, 3.50, 3.02, 14.52),
            80: (3.63, 4.61, 4.17, 3.75, 17.00),
        },
    ),
    "ning2023/table3/adm-ip": _table3(
        "ADM-IP",
        {
            1000: (2.76, 2.87, 2.68, 1.31, 2.98),
            300: (2.67, 2.74, 2.60, 1.43, 3.74),
            100: (2.70, 3.24, 2.79, 2.21, 5.94),
            80: (2.93, 3.57, 2.95, 2.67, 6.89),
        },
    ),
    "karras2022/table2/ddpmpp": _cifar10(KARRAS, "Table 2", "EDM, DDPM++, unconditional", 1.97),
    "karras2022/table2/ncsnpp": _cifar10(KARRAS, "Table 2", "EDM, NCSN++, unconditional", 1.98),
    "karras2022/table2/ddpmpp-conditional": _cifar10(KARRAS, "Table 2", "EDM, DDPM++, conditional", 1.79),
    "xu2023/table1/D128": _cifar10(XU, "Table 1", "PFGM++, D = 128, unconditional", 1.92),
    "xu2023/table1/D2048": _cifar10(XU, "Table 1", "PFGM++, D = 2048, unconditional", 1.91),
    "xu2023/table1/D2048-conditional": _cifar10(XU, "Table 1", "PFGM++, D = 2048, conditional", 1.74),
    "li2024/table1/adm-ip": _table1("ADM-IP", (3.25, 2.72, 1.31), "found", ADM_IP),
    "li2024/table1/ddpm": _table1("DDPM", (3.61, 3.62, 1.73), "memory, medium to high"),
    "li2024/table1/consistent-dm": _table1("DDPM with Consistent DM", (3.31, 3.16, 1.38), "memory, low to medium"),
    "li2024/table1/fp-diffusion": _table1("DDPM with FP-Diffusion", (3.47, 3.28, 1.56), "memory, low to medium"),
    "li2024/table1/proposed": _table1("DDPM with the regulariser", (2.93, 2.55, 1.22), "memory, medium to high"),
    "li2024/table2/proposed": _table2("with the regulariser", 2.93, 1.22),
    "li2024/table2/no-exponential-schedule": _table2("without exponential schedule", 3.12, 1.35),
    "li2024/table2/no-warm-start-L5": _table2("without warm start, L = 5", 3.38, 1.45),
    "li2024/table2/no-warm-start-L7": _table2("without warm start, L = 7", 3.15, 1.27),
}
