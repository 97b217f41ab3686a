"""Whether a reproduced score may be compared with a published one, and what the comparison says.

- not comparable: the published number is of another dataset, or a part of its protocol is another one or not known;
- unverified: the protocols agree, but the number is recollected and was never seen, so no verdict rests on it;
- within tolerance, differs: the protocols agree, the number was read in a source, and the whole 95 % interval of our
  mean, over seeds or over samples, whichever is wider, lies inside the tolerance, or outside of it;
- undecided: likewise, but the interval lies across its edge, or one seed leaves none. More noise never confirms.

Tolerance: 4 % of the published number. A published FID is one training: retraining moves it with a coefficient of
variation of up to 2 % (Dufour, Efros and Pérez, "The FID Lottery", 2026), and two standard deviations of that are 4 %.
"""

from dataclasses import fields

from pipeline_lib.records.published import ROWS, Protocol, Published

RELATIVE_TOLERANCE = 0.04
NAMES = {
    "recipe": "data preparation",
    "split": "split",
    "reference_images": "reference images",
    "extractor": "extractor",
    "samples": "samples",
    "sampler": "sampler",
    "nfe": "NFE",
}


def numbers(key: str, nfe: int | None) -> list[Published]:
    """The numbers of a published row, one a dataset: that at so many network calls, or else the first."""
    found: dict[str, Published] = {}
    for p in ROWS[key]:
        if p.dataset not in found or p.protocol.nfe == nfe:
            found[p.dataset] = p
    return list(found.values())


def number_of(key: str, recipe: str, nfe: int | None = None) -> Published | None:
    """The number of a published row on the dataset that a recipe prepares; None where it has none."""
    return next((p for p in numbers(key, nfe) if recipe == p.dataset or recipe.startswith(f"{p.dataset}-")), None)


def differences(published: Protocol, mine: Protocol) -> list[str]:
    """What keeps two scores from being compared: parts of the published protocol that are another one or not known."""
    pairs = {NAMES[f.name]: (getattr(published, f.name), getattr(mine, f.name)) for f in fields(Protocol)}
    other = [f"{name} {theirs} (here {ours})" for name, (theirs, ours) in pairs.items() if theirs not in (None, ours)]
    unknown = [name for name, (theirs, _) in pairs.items() if theirs is None]
    return [*other, *([f"{', '.join(unknown)} unknown"] if unknown else [])]


def verdict(key: str, mine: Protocol, mean: float, half_width: float) -> str:
    """What the score `mean`, measured as `mine` says, means for the published row `key`.

    `half_width`: of the 95 % interval of the mean; NaN with one seed.
    """
    published = number_of(key, mine.recipe or "", mine.nfe)
    if published is None:
        return "not comparable: dataset"
    if found := differences(published.protocol, mine):
        return f"not comparable: {'; '.join(found)}"
    if not published.found:
        return "unverified"
    gap, allowed = abs(mean - published.value), RELATIVE_TOLERANCE * published.value
    if gap + half_width <= allowed:
        return "within tolerance"
    return "differs" if gap - half_width > allowed else "undecided"
