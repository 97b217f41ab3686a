"""What is said of a reproduced score against a published one, rule by rule."""

from dataclasses import fields, replace
from typing import Any

import pytest

from pipeline_lib.records import published as data
from pipeline_lib.records.published import ROWS, Protocol, Published
from pipeline_lib.reporting.published import differences, number_of, verdict

FULL = Protocol("cifar10", "train", 50_000, "inception-v3-compat", 50_000, "ancestral", 1000)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A found and a recollected number of 4.0, of known protocol."""
    found = Published("A", "Table 1", "one", "cifar10", 4.0, "found", FULL)
    monkeypatch.setitem(ROWS, "found", [found])
    monkeypatch.setitem(ROWS, "memory", [replace(found, tag="memory, high")])


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (4.0, 0.0, "within tolerance"),
        (4.159, 0.0, "within tolerance"),  # 4 % of the published number
        (4.161, 0.0, "differs"),
        (3.841, 0.0, "within tolerance"),
        (3.839, 0.0, "differs"),
        (4.05, 0.1, "within tolerance"),  # the whole interval inside
        (4.1, 0.1, "undecided"),  # across the edge, from either side
        (4.2, 0.1, "undecided"),
        (4.27, 0.1, "differs"),  # the whole interval outside
        (4.0, 3.0, "undecided"),  # noise confirms nothing
        (4.0, float("nan"), "undecided"),  # nor does one seed
        (9.0, float("nan"), "undecided"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_a_found_number_of_the_same_protocol_decides(mean: float, half_width: float, expected: str) -> None:
    assert verdict("found", FULL, mean, half_width) == expected


@pytest.mark.usefixtures("rows")
def test_a_recollected_number_decides_nothing() -> None:
    assert verdict("memory", FULL, 4.0, 0.0) == "unverified"
    assert verdict("memory", FULL, 40.0, 0.0) == "unverified"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "test"}, "split train (here test)"),
        ({"reference_images": 49_000}, "reference images 50000 (here 49000)"),
        ({"extractor": "classifier-digits"}, "extractor inception-v3-compat (here classifier-digits)"),
        ({"samples": 10_000}, "samples 50000 (here 10000)"),
        ({"sampler": "ddim"}, "sampler ancestral (here ddim)"),
        ({"nfe": 100}, "NFE 1000 (here 100)"),
        ({"extractor": None}, "extractor inception-v3-compat (here None)"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_another_protocol_cannot_be_compared(change: dict[str, Any], said: str) -> None:
    for key in ("found", "memory"):
        assert verdict(key, replace(FULL, **change), 4.0, 0.0) == f"not comparable: {said}"


@pytest.mark.usefixtures("rows")
def test_another_dataset_cannot_be_compared() -> None:
    assert verdict("found", replace(FULL, recipe="digits"), 4.0, 0.0) == "not comparable: dataset"


@pytest.mark.parametrize("part", [f.name for f in fields(Protocol)])
def test_what_is_not_known_cannot_be_compared(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = replace(FULL, **{part: None})
    monkeypatch.setitem(ROWS, "key", [Published("A", "Table 1", "one", "cifar10", 4.0, "found", protocol)])
    found = verdict("key", FULL, 4.0, 0.0)
    assert found.startswith("not comparable: ")
    assert found.endswith("unknown")


def test_all_differences_are_named() -> None:
    found = differences(Protocol(split="train", nfe=1000), replace(FULL, nfe=100))
    assert found == ["NFE 1000 (here 100)", "data preparation, reference images, extractor, samples, sampler unknown"]


@pytest.mark.parametrize(
    ("recipe", "value"),
    [("cifar10", 3.61), ("celeba64-ddim", 1.73), ("celeba64-scoresde", 1.73), ("digits", None), ("cifar100", None)],
)
def test_the_recipe_chooses_the_number(recipe: str, value: float | None) -> None:
    found = number_of("li2024/table1/ddpm", recipe)
    assert (found.value if found else None) == value


def test_rows_that_were_read_in_a_source() -> None:
    """Of Li and van der Schaar only the one that is copied from another paper."""
    found = {key for key, rows in ROWS.items() if any(r.found for r in rows)}
    assert {key for key in found if key.startswith("li2024")} == {"li2024/table1/adm-ip"}
    assert {"ning2023/table3/adm", "ning2023/table3/adm-ip", "ning2024/adm-es", "ning2024/edm-heun-es"} <= found
    assert not {"ning2024/ddim-es", "ning2024/ldm-es"} & found  # numbers of calls, or all of it, from memory
    for rows in ROWS.values():
        assert all(r.tag == "found" or r.tag.startswith("memory, ") for r in rows)


def test_no_verdict_on_a_recollected_row_of_the_data() -> None:
    """Whatever is measured, none of these rows can be confirmed or refuted."""
    for key, rows in ROWS.items():
        for row in rows:
            mine = replace(FULL, recipe=row.protocol.recipe or row.dataset)
            if not row.found:
                assert verdict(key, mine, row.value, 0.0).startswith(("not comparable", "unverified"))


def test_the_copied_row_can_be_verified_where_its_protocol_is_known() -> None:
    key = "li2024/table1/adm-ip"
    assert verdict(key, FULL, 3.3, 0.0) == "within tolerance"
    assert verdict(key, FULL, 4.3, 0.0) == "differs"
    imagenet = replace(FULL, recipe="imagenet32", reference_images=1_281_167)
    assert verdict(key, imagenet, 2.72, 0.0) == "not comparable: data preparation, reference images unknown"


def test_scaled_rows_have_their_cells() -> None:
    """ADM-ES at 20 calls and EDM-ES with b below 1, as the tables of Ning et al. (2024) have them."""
    cells = {(key, r.dataset, r.protocol.nfe): r.value for key, rows in ROWS.items() for r in rows}
    assert cells["ning2024/adm-es", "imagenet128", 20] == 9.95
    assert cells["ning2024/adm-es-linear", "lsun-tower64", 20] == 7.60
    assert cells["ning2024/edm-heun-es", "cifar10", 21] == 2.24
    assert cells["ning2024/edm-euler-conditional", "cifar10", 13] == 10.66
    assert cells["ning2024/pfgmpp-D2048-es", "cifar10", 9] == 17.27
    assert ("ning2024/adm-es", "imagenet128", 10) not in cells


def test_tables_have_their_rows() -> None:
    labels = {key: [(r.dataset, r.value) for r in rows] for key, rows in ROWS.items()}
    assert labels["li2024/table1/proposed"] == [("cifar10", 2.93), ("imagenet32", 2.55), ("celeba64", 1.22)]
    assert labels["li2024/table2/proposed"] == [("cifar10", 2.93), ("celeba64", 1.22)]
    papers = {r.paper for key, rows in ROWS.items() for r in rows if key.startswith("li2024")}
    assert papers == {data.PAPER}


@pytest.mark.parametrize(
    ("key", "nfe", "value"),
    [("adm", 1000, 2.99), ("adm", 80, 3.63), ("adm-ip", 1000, 2.76), ("adm-ip", 100, 2.70), ("adm-ip", 20, 2.76)],
)
def test_input_perturbation_has_a_number_for_each_of_its_step_counts(key: str, nfe: int, value: float) -> None:
    """Ning et al. (2023), Table 3 of the ICML version; other step counts see the first, and no verdict."""
    row = f"ning2023/table3/{key}"
    found = number_of(row, "cifar10", nfe)
    assert found is not None
    assert (found.value, found.tag) == (value, "found")
    mine = replace(FULL, nfe=nfe)
    expected = "within tolerance" if nfe != 20 else "not comparable: NFE 1000 (here 20)"
    assert verdict(row, mine, value, 0.0) == expected


def test_a_reference_of_random_images_is_not_all_images() -> None:
    mine = replace(FULL, recipe="lsun-tower64", reference_images=708_264)
    said = "not comparable: reference images 50000 (here 708264)"
    assert verdict("ning2023/table3/adm", mine, 3.39, 0.0) == said


def test_rows_of_edm_and_pfgmpp_are_compared_at_35_calls_of_their_sampler() -> None:
    same = replace(FULL, sampler="edm", nfe=35)
    assert verdict("karras2022/table2/ddpmpp", same, 2.0, 0.0) == "within tolerance"
    assert verdict("xu2023/table1/D2048", same, 2.4, 0.0) == "differs"
    assert verdict("xu2023/table1/D128", FULL, 1.92, 0.0).startswith("not comparable")
