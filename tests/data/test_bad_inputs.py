"""Each ends with its exit code and one sentence, and leaves nothing half-prepared."""

from pathlib import Path

import pytest

from pipeline_lib.__main__ import main
from tests.conftest import write_config
from tests.data.bad_inputs import CASES, OUTPUT, Case, made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_one_sentence_and_nothing_left(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    config = write_config(Path("config.json"), "data", case.config())
    with made(case):
        assert main(["data", "--config", str(config), "--output", str(OUTPUT)]) == case.code
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    said = record.getMessage()
    assert "\n" not in said
    assert said.endswith(".")
    assert "Traceback" not in caplog.text
    assert not OUTPUT.exists()
    assert not Path("results/store").exists() or list(Path("results/store").iterdir()) == []
