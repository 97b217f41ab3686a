"""Published scores, as far as they are known, and how sure we are of each.

A tag says where a number comes from: *found* in a source that was read, or *memory*, recollected and not seen (with a
confidence). What is not known of a protocol is None, and nothing is compared on it.
"""

from collections.abc import Iterable, Mapping, Sequence
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


EPSILON_SCALING = "Ning et al. (2024)"
# Reference sets: all training images of CIFAR-10 and FFHQ, 50,000 of LSUN, the published statistics of ImageNet.
_ES: dict[str, Any] = {"extractor": INCEPTION, "samples": 50_000}
T_ADM = {
    "cifar10": Protocol(recipe="cifar10", split="train", reference_images=50_000, sampler="ancestral", **_ES),
    "lsun-tower64": Protocol(recipe="lsun-tower64", split="train", reference_images=50_000, sampler="ancestral", **_ES),
    "ffhq128": Protocol(recipe="ffhq128", split="train", reference_images=70_000, sampler="ancestral", **_ES),
    "imagenet64": Protocol(sampler="ancestral", **_ES),  # statistics of OpenAI: their images are not ours
    "imagenet128": Protocol(sampler="ancestral", **_ES),
}
MEMORY_LOW = "memory, low"


def _scaled_adm(label: str, by_calls: Mapping[int, Mapping[str, float] | Sequence[float]]) -> list[Published]:
    """A row of the ADM table at each number of calls, in the order of its datasets where they are not named."""
    found = []
    for nfe, values in by_calls.items():
        named = values if isinstance(values, Mapping) else dict(zip(T_ADM, values, strict=True))
        protocols = {d: replace(T_ADM[d], nfe=nfe) for d in named}
        found += [Published(EPSILON_SCALING, "ADM", label, d, v, "found", protocols[d]) for d, v in named.items()]
    return found


def _scaled(
    table: str, label: str, sampler: str, values: Mapping[int, float], dataset: str = "cifar10", tag: str = "found"
) -> list[Published]:
    """A row of another table, at each number of calls; what its reference set was is known of CIFAR-10 alone."""
    known: dict[str, Any] = (
        {"recipe": "cifar10", "split": "train", "reference_images": 50_000} if dataset == "cifar10" else {}
    )
    protocol = Protocol(sampler=sampler, **_ES, **known) if tag == "found" else Protocol(sampler=sampler)
    return [
        Published(EPSILON_SCALING, table, label, dataset, value, tag, replace(protocol, nfe=nfe))
        for nfe, value in values.items()
    ]


def _ddim(label: str, cifar10: Iterable[float], celeba64: Iterable[float]) -> list[Published]:
    """A row of the DDIM table at 100, 50 and 20 steps: that of CIFAR-10 at 100 was read, but without its steps."""
    first, *others = cifar10
    calls = (100, 50, 20)
    return [
        *_scaled(
            "DDIM", label, "ddim", {100: first}, tag="memory, medium: the number was read, its 100 steps were not"
        ),
        *_scaled("DDIM", label, "ddim", dict(zip(calls[1:], others, strict=True)), tag=MEMORY_LOW),
        *_scaled("DDIM", label, "ddim", dict(zip(calls, celeba64, strict=True)), "celeba64", MEMORY_LOW),
    ]


def _ldm(label: str, ffhq256: Iterable[float], celebahq256: Iterable[float]) -> list[Published]:
    values = {"ffhq256": ffhq256, "celebahq256": celebahq256}
    return [
        p
        for dataset, fids in values.items()
        for p in _scaled("LDM", label, "ddim", dict(zip((100, 50, 20), fids, strict=True)), dataset, MEMORY_LOW)
    ]


NFE_ANALYTIC = (20, 50, 100, 200, 400, 1000)
NFE_HEUN = (35, 21, 13)


def _daras(label: str, value: float) -> list[Published]:
    """Beside an EDM that was trained again, of 2.01 without and 1.82 with labels; the calls are not named."""
    known = replace(HEUN, sampler=None, nfe=None)
    return [Published("Daras et al. (2023)", "README", f"CDM, {label}", "cifar10", value, "found", known)]


ROWS: dict[str, list[Published]] = {
    "ning2024/adm": _scaled_adm(
        "ADM",
        {
            100: (3.37, 3.59, 14.52, 2.71, 3.55),
            50: (4.43, 7.28, 26.15, 3.75, 5.15),
            20: (10.36, 23.92, 59.35, 10.96, 12.48),
            10: {"cifar10": 23.37, "lsun-tower64": 45.35, "imagenet64": 27.90},
            200: {"cifar10": 3.04},
            300: {"cifar10": 2.95},
            1000: {"cifar10": 3.01},
        },
    ),
    "ning2024/adm-es": _scaled_adm(
        "ADM-ES, uniform",
        {
            100: (2.17, 2.91, 6.77, 2.39, 3.37),
            50: (2.49, 3.68, 9.50, 3.07, 4.33),
            20: (5.15, 8.22, 26.14, 7.52, 9.95),
            10: {"cifar10": 16.89, "lsun-tower64": 23.66, "imagenet64": 20.94},
            200: {"cifar10": 2.15},
            300: {"cifar10": 2.14},
            1000: {"cifar10": 2.21},
        },
    ),
    # FFHQ: another place in the same source has 24.18 at the k of the table, and 24.83 at twice that k
    "ning2024/adm-es-linear": _scaled_adm("ADM-ES, linear", {20: (4.31, 7.60, 24.83, 7.37, 9.86)}),
    "ning2024/adm-ip": _scaled_adm(
        "ADM-IP", {nfe: {"cifar10": v} for nfe, v in ((10, 20.93), (20, 6.96), (50, 2.91), (100, 2.38))}
    ),
    **{
        f"ning2024/edm-{sampler}{name}{scaled}": _scaled(
            "EDM", f"EDM, {sampler}{name.replace('-', ', ')}{scaled.replace('-es', ', scaled')}", "edm", values
        )
        for sampler, name, scaled, values in (
            ("heun", "", "", dict(zip(NFE_HEUN, (1.97, 2.33, 7.16), strict=True))),
            ("heun", "", "-es", dict(zip(NFE_HEUN, (1.95, 2.24, 6.54), strict=True))),
            ("heun", "-conditional", "", dict(zip(NFE_HEUN, (1.82, 2.17, 6.69), strict=True))),
            ("heun", "-conditional", "-es", dict(zip(NFE_HEUN, (1.80, 2.08, 6.16), strict=True))),
            ("euler", "", "", {35: 3.81, 21: 6.29, 13: 12.28, 9: 22.97, 7: 36.58, 5: 68.69}),
            ("euler", "", "-es", {35: 2.80, 21: 4.32, 13: 8.39, 9: 16.34, 7: 27.29, 5: 55.26}),
            ("euler", "-conditional", "", dict(zip(NFE_HEUN, (3.74, 5.91, 10.66), strict=True))),
            ("euler", "-conditional", "-es", dict(zip(NFE_HEUN, (2.59, 3.74, 6.59), strict=True))),
        )
    },
    **{
        f"ning2024/pfgmpp-{name}{scaled}": _scaled("PFGM++", f"PFGM++, {name}{said}", "edm", values)
        for name, scaled, said, values in (
            ("D128", "", "", {35: 1.92, 21: 2.34, 13: 7.55, 9: 37.82}),
            ("D128", "-es", ", scaled", {35: 1.91, 21: 2.31, 13: 4.51, 9: 17.91}),
            ("D2048", "", "", {35: 1.91, 21: 2.31, 13: 7.34, 9: 37.16}),
            ("D2048", "-es", ", scaled", {35: 1.90, 21: 2.20, 13: 4.88, 9: 17.27}),
        )
    },
    "ning2024/analytic-ddpm": _scaled(
        "Analytic-DPM",
        "Analytic-DDPM, linear schedule",
        "analytic-dpm",
        dict(zip(NFE_ANALYTIC, (14.61, 7.25, 5.40, 4.01, 3.62, 4.03), strict=True)),
    ),
    "ning2024/analytic-ddpm-es": _scaled(
        "Analytic-DPM",
        "Analytic-DDPM, linear schedule, scaled",
        "analytic-dpm",
        dict(zip(NFE_ANALYTIC, (11.02, 5.03, 4.09, 3.39, 3.14, 3.42), strict=True)),
    ),
    "ning2024/ddim": _ddim("DDIM", (4.06, 4.82, 8.21), (5.67, 6.88, 10.43)),
    "ning2024/ddim-es": _ddim("DDIM, scaled", (3.38, 4.17, 6.54), (5.05, 6.20, 10.38)),
    "ning2024/ldm": _ldm("LDM", (10.90, 14.34, 33.13), (9.31, 13.95, 29.62)),
    "ning2024/ldm-es": _ldm("LDM, scaled", (9.83, 11.57, 20.91), (7.36, 9.16, 14.22)),
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
    "daras2023/readme/unconditional": _daras("unconditional", 1.95),
    "daras2023/readme/conditional": _daras("conditional", 1.77),
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
