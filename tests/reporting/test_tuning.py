"""What is said of tuned constants that lie at an end of what was searched."""

import pandas as pd

from pipeline_lib.reporting.tuning import ends_note

EXPERIMENT = {"methods": {"ddpm": {"label": "DDPM", "variants": {"paper": {"preset": "paper"}}}}}


def search(nfe: int, seed: int, best: float) -> list[dict]:
    who = {"dataset": "digits", "method": "ddpm", "variant": "paper", "seed": seed, "sampler": "tuned", "nfe": nfe}
    return [
        {**who, "trial": i, "round": "b, stride 0.1", "b": b, "k": 0.0, "window": None, "cutoff": None, "score": i}
        | {"chosen": "chosen" if b == best else "", "score": abs(b - best)}
        for i, b in enumerate((0.9, 1.0, 1.1))
    ]


def test_a_constant_at_an_end_is_named_once_with_what_to_do() -> None:
    tried = pd.DataFrame([*search(5, 0, 1.1), *search(5, 1, 1.1), *search(10, 0, 0.9), *search(20, 0, 1.0)])
    said = ends_note(tried, EXPERIMENT)
    assert "widen `low` or `high`" in said
    assert said.endswith("b of tuned at 5, 10 calls (DDPM on digits).")
    assert ends_note(pd.DataFrame(search(20, 0, 1.0)), EXPERIMENT) == ""
