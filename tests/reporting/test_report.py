"""The page parses, needs nothing but itself, and says what is there and what is not."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline_lib.reporting import figures, findings, report
from pipeline_lib.reporting import page as page_room
from pipeline_lib.reporting.collect import collect, jobs, manifest, state
from pipeline_lib.reporting.sections import errors, training
from tests.reporting.conftest import SENTENCE

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps text, links and loaded sources."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.words, self.ids = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        self.sources += [values[k] for k in ("src", "href") if k in values and tag != "a"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def build(tree, draw=False):
    if draw:
        figures.run(tree.folder, tree.experiment)
    report.run(tree.folder, tree.experiment)
    return Page((tree.folder / "report.html").read_text())


def test_complete(tree):
    built = tree(seeds=(0,), checks=({"metric": "fd", "nfe": 20, "at_most": 1.6},)).complete()
    page = build(built, draw=True)
    assert "A tiny experiment" in page.text
    assert "1 of 2 claims hold" in page.text
    assert ", claimed at most 1.6)" in page.text
    assert "above the null's 95 % quantile on 3 (laplace), 3 (gaussian) of 4 steps" in page.text
    assert "rank correlation with the step 0.7 [0.5, 0.8] (laplace)" in page.text
    assert "the error grows in 2 of 2 curves, from first to last quarter at least by the factor 5" in page.text
    assert "torch" in page.text
    assert "2.11.0" in page.text
    # real images and two methods side by side, and the grid of each method
    assert len([s for s in page.sources if s.startswith("data:image/png")]) == 5
    # two readings of Fig. 2, two kernels of Fig. 3, the training, the anatomy
    assert len([s for s in page.sources if s.startswith("data:image/svg")]) == 6
    assert all(source.startswith("data:") for source in page.sources)
    text = (built.folder / "report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", re.sub(r'"data:[^"]*"', "", text))


def test_links_lead_somewhere(tree):
    built = tree(seeds=(0,)).complete()
    built.fail("digits/other/base/s0/train")
    page = build(built)
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    files = [link for link in page.links if not link.startswith("#") and not link.startswith("tables/")]
    assert "digits/other/base/s0/train/log.txt" in files
    assert all((built.folder / link).is_file() for link in files)


def test_failed_training(tree):
    built = tree().complete()
    built.fail("digits/other/base/s1/train", "bad <data> & more.")
    page = build(built)
    assert "digits/other/base/s1/train failed: bad <data> & more." in page.text
    assert "1 failed" in page.text


def test_nothing_trained_yet(tree):
    page = build(tree(), draw=True)
    assert "Nothing was trained yet." in page.text
    assert "No score yet." in page.text
    assert "not run yet" in page.text


def test_only_a_failure(tree):
    built = tree()
    built.fail("digits/data")
    assert f"digits/data failed: {SENTENCE}" in build(built).text


def test_a_changed_picture_is_left_out(tree):
    built = tree(seeds=(0,)).complete()
    made = manifest(built.folder, "digits/ddpm/base/s0/ancestral/sample")
    Path(made.folder, "nfe0020/grid.png").write_bytes(b"something else")
    page = build(built)
    assert len([s for s in page.sources if s.startswith("data:image/png")]) == 4


def test_pictures_beyond_the_budget_are_links(tree):
    built = tree(seeds=(0,)).complete()
    made = manifest(built.folder, "digits/data")
    pictures = page_room.Pictures(built.folder, left=10)
    found = pictures.stored(made, "grid.png")
    assert found["source"] == ""
    assert (built.folder / found["link"]).is_file()


def test_counts_blame_only_the_job_that_failed(tree):
    built = tree().complete()
    built.fail("digits/ddpm/base/s0/train")
    states = {job.place: (job, state(built.folder, job)) for job in jobs(built.experiment)}
    assert report.counts(states) == {"done": 17, "pending": 3, "failed": 1}


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([1.0], "0.0,23.0"),
        ([0.0, 1.0], "0.0,23.0 120.0,1.0"),
        ([100.0, 10.0, 1.0], "0.0,1.0 60.0,12.0 120.0,23.0"),
    ],
)
def test_sparkline(values, points):
    assert training.sparkline(values) == points


def test_long_sparkline_keeps_its_ends():
    points = training.sparkline([float(i) for i in range(1000)]).split()
    assert (len(points), points[0], points[-1]) == (120, "0.0,23.0", "120.0,1.0")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, ("0.0", "seconds")), (90, ("1.5", "minutes")), (7.2e6, ("2,000.0", "hours"))],
)
def test_spent(seconds, shown):
    assert report.spent(seconds) == shown


def test_a_picture_that_no_manifest_hashes_is_shown(tree):
    built = tree(seeds=(0,))
    built.manifest("digits/data", {}, [])
    made = manifest(built.folder, "digits/data")
    Path(made.folder, "grid.png").write_bytes(b"picture")
    assert page_room.Pictures(built.folder).stored(made, "grid.png")["source"] == "data:image/png;base64,cGljdHVyZQ=="


def test_a_trend_without_a_value_is_said_to_be_undefined(tree):
    built = tree(seeds=(0,)).complete()
    trends = collect(built.folder, built.experiment)["trends"]
    trends.loc[trends["trend"].eq("growth-ratio"), ["value", "low", "high"]] = None
    shown = errors.trend_table(trends, built.experiment)
    row = shown.same | dict(zip(shown.columns, shown.rows[0], strict=True))
    assert row["growth-ratio"] == "not defined"
    assert row["rank-correlation"] == "0.7 [0.5, 0.8]"


def test_before_and_after_are_shown_with_what_the_yardstick_means(tree):
    built = tree(seeds=(0,)).complete()
    page = build(built, draw=True)
    assert "Before and after regularisation" in page.text
    assert page.text.count("Sampling runs from left") == 1
    assert "With ancestral, bandwidth per-t. As files" in page.text
    assert "A third curve, against what the network is given at t in its training, was not asked" in page.text
    built.experiment["errors"]["forward_laws"].append("training-inputs")
    assert "is trained on noised real images alone" in build(built).text
    built.experiment["methods"]["other"]["variants"]["base"]["control"] = None
    assert "Before and after regularisation" not in build(built).text


def test_the_curve_against_training_inputs_is_read_apart(tree):
    built = tree(seeds=(0,)).complete()
    before = [r["says"] for r in findings.readings(collect(built.folder, built.experiment), built.experiment)]
    built.draw("other", 0, 4.0, 1, own=True)
    after = [r["says"] for r in findings.readings(collect(built.folder, built.experiment), built.experiment)]
    assert after[0] == before[0]
    own = "against the inputs of its own training, 2 of 2 curves are a horizontal line: a growth of more than 0.025"
    curves, paired = before[1].split("; paired by chain")
    assert after[1] == f"{curves}; {own} would have been seen; paired by chain{paired}"


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("falls", "the error falls in 2 of 2 curves, from first to last quarter at most to 9 of it"),
        ("horizontal", "2 of 2 curves are a horizontal line: a growth of more than 0.025 would have been seen"),
        ("undecided", "(a fluctuation of up to 0.025 is not excluded, a line may have 0.03)"),
    ],
)
def test_a_verdict_comes_with_the_number_that_it_rests_on(tree, verdict, says):
    built = tree(seeds=(0,)).complete()
    tables = collect(built.folder, built.experiment)
    tables["trends"]["verdict"] = verdict
    assert all(says in reading["says"] for reading in findings.readings(tables, built.experiment))


def test_growth_from_nothing_has_no_factor(tree):
    built = tree(seeds=(0,)).complete()
    tables = collect(built.folder, built.experiment)
    tables["trends"].loc[tables["trends"]["trend"].eq("growth-ratio"), ["value", "low", "high"]] = None
    says = findings.readings(tables, built.experiment)[0]["says"]
    assert says.endswith("the error grows in 2 of 2 curves.")


def test_a_very_long_table_is_cut_and_says_so(tree, monkeypatch):
    monkeypatch.setattr(page_room, "LARGEST_TABLE", 3)
    page = build(tree().complete())
    assert "The first 3 of 8 rows; the CSV file has all." in page.text


def test_the_difference_to_the_control_is_told_by_its_mean_over_the_curve(tree):
    built = tree(seeds=(0,)).complete()
    ddpm, other = findings.readings(collect(built.folder, built.experiment), built.experiment)
    assert "paired" not in ddpm["says"]
    verdict, means = other["says"].split("; paired by chain with its control DDPM, ")[1].split(": ", 1)
    assert verdict == "the mean over the curve is lower in 2, higher in 0, not told apart in 0 of 2 curves"
    kernels, steps = means.split(" (single steps, which depend on each other: ")
    assert kernels == "-0.01 [-0.011, -0.009] (laplace), -0.01 [-0.011, -0.009] (gaussian)"
    assert steps == "4 of 8 intervals exclude 0)."
    page = build(built)
    assert "Paired difference to the control" in page.text
    assert "a count of curves is not one of independent tests" in page.text


def test_a_difference_that_cannot_be_paired_is_said_to_be_missing(tree):
    built = tree(seeds=(0,)).complete()
    built.fail("digits/ddpm/base/s0/train")
    says = findings.readings(collect(built.folder, built.experiment), built.experiment)[0]["says"]
    assert says.endswith(
        "no difference to DDPM: not paired: its control has no curve of this seed and number of network calls."
    )
    assert "its control has no curve of this seed" in build(built).text
