import pytest

from pipeline_lib.exits import BadData
from pipeline_lib.records.tables import PROGRESS, write
from pipeline_lib.tracking import content
from tests.tracking import tree


@pytest.fixture
def plan():
    planned = tree.plan()
    tree.prepare(planned)
    return planned


def read(planned):
    return content.dataset(planned.root, "digits", tree.experiment(planned))


def test_flatten_dots_keys_and_writes_json():
    assert content.flatten({"a": {"b": [1, 2], "c": None}, "d": "x", "e": 2e-4}) == {
        "a.b": "[1, 2]",
        "a.c": "null",
        "d": "x",
        "e": "0.0002",
    }


def test_long_parameters_are_cut_and_still_differ():
    one, other = (content.flatten({"a": "x" * 600 + end})["a"] for end in "yz")
    assert len(one) <= content.LONGEST_PARAM
    assert one != other


def test_metric_names_lose_what_mlflow_refuses():
    assert content.metric_name("score/FD (classifier-digits)/ancestral/nfe100") == (
        "score/FD classifier-digits/ancestral/nfe100"
    )


def test_of_two_values_at_one_step_the_last_stands_and_others_than_numbers_are_left_out():
    points = list(content._points(["a", "a", "b"], [1, 1, 1], [1.0, 2.0, float("nan")]))
    assert points == [content.Point("a", 1, 2.0)]


def test_nothing_is_there_before_the_data_is():
    planned = tree.plan()
    planned.write()
    assert read(planned) is None


def test_a_run_is_pushed_from_its_training_on(plan):
    parent, children = read(plan)
    assert children == []
    assert parent.status == content.SCHEDULED
    tree.train(plan, plan.instances[0])
    assert [(c.path, c.status, c.end_ms) for c in read(plan)[1]] == [("digits/ddpm/paper/s0", content.SCHEDULED, None)]


def test_complete_once_all_is_measured(plan):
    for one in plan.instances:
        tree.train(plan, one)
        tree.measure(plan, one)
    parent, children = read(plan)
    assert {c.status for c in (parent, *children)} == {content.FINISHED}
    assert children[0].end_ms == 1000 * tree.CLOCK
    assert children[0].start_ms == 1000 * (tree.CLOCK - 600)


def test_a_failure_is_told(plan):
    tree.fail(plan, plan.instances[0])
    parent, (child,) = read(plan)
    assert (parent.status, child.status) == (content.FAILED, content.FAILED)
    assert child.tags["failure"] == "the loss is nan."


def test_identity_and_digest_do_not_depend_on_file_times(plan):
    tree.train(plan, plan.instances[0])
    before = read(plan)[1][0]
    (plan.root / before.path / "train" / "manifest.json").touch()
    after = read(plan)[1][0]
    assert after.end_ms is None
    assert after.start_ms != before.start_ms
    assert (after.key("suite"), after.digest()) == (before.key("suite"), before.digest())


def test_another_configuration_is_another_run(plan):
    tree.train(plan, plan.instances[0])
    before = read(plan)[1][0]
    changed = tree.plan(lr=5e-4)
    changed.write()
    tree.train(changed, changed.instances[0])
    assert read(changed)[1][0].key("suite") != before.key("suite")


def test_only_the_main_reading_of_the_bandwidth_is_pushed(plan):
    tree.train(plan, plan.instances[0])
    tree.measure(plan, plan.instances[0])
    points = [p for p in read(plan)[1][0].points if p.key == "mmd2/laplace/ancestral/nfe20"]
    assert [(p.step, p.value) for p in points] == [(i, float(i)) for i in range(5)]


def test_scores_of_snapshots_are_a_curve_over_steps(plan):
    one = plan.instances[0]
    tree.train(plan, one)
    tree.measure(plan, one)
    rows = [{"nfe": 100, "metric": "FD (x)", "value": v, "step": s} for s, v in ((600, 9.0), (1200, 7.25))]
    write(plan.root / one.path / "ancestral/progress/progress.parquet", rows, PROGRESS)
    points = [p for p in read(plan)[1][0].points if p.key.startswith("progress/")]
    assert [(p.step, p.value) for p in points] == [(600, 9.0), (1200, 7.25)]


def test_a_damaged_grid_is_named(plan):
    tree.train(plan, plan.instances[0])
    next((plan.root.parent / "store").glob("train-*/grid.png")).write_bytes(b"")
    with pytest.raises(BadData, match=r"grid\.png is not what it was"):
        read(plan)


def test_a_training_of_an_earlier_configuration_does_not_count(plan):
    tree.train(plan, plan.instances[0])
    tree.measure(plan, plan.instances[0])
    changed = tree.plan(lr=5e-4)
    changed.write()
    assert read(changed)[1] == []


def test_a_record_of_samples_that_are_drawn_anew_does_not_count(plan):
    one = plan.instances[0]
    tree.train(plan, one)
    tree.measure(plan, one)
    (plan.root / one.path / "ancestral" / "sample" / "manifest.json").unlink()
    child = read(plan)[1][0]
    assert child.status == content.SCHEDULED
    assert {p.key.split("/")[0] for p in child.points} == {"train", "mmd2", "trend"}


def test_what_is_not_scored_is_complete_without_scores(plan):
    for one in plan.instances:
        tree.train(plan, one)
        tree.measure(plan, one)
        (plan.root / one.path / "ancestral/scores/scores.parquet").unlink()
    asked = tree.experiment(plan)
    assert {c.status for c in content.dataset(plan.root, "digits", asked)[1]} == {content.SCHEDULED}
    asked["samplings"]["ancestral"]["scored"] = False
    assert {c.status for c in content.dataset(plan.root, "digits", asked)[1]} == {content.FINISHED}
