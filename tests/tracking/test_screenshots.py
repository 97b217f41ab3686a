import pytest

from pipeline_lib.exits import BadData, TryAgain
from pipeline_lib.records.files import write_json, write_text
from pipeline_lib.tracking import browser, screenshots


def test_without_a_push_there_is_nothing_to_photograph(tmp_path):
    with pytest.raises(BadData, match="track suite"):
        screenshots.run(tmp_path / "suite", tmp_path / "images")
    assert screenshots.main([]) == BadData.exit_code


def test_a_missing_browser_is_told(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(TryAgain, match="Chromium is not installed"):
        browser.Browser()


def test_pages_are_those_of_the_first_dataset(tmp_path):
    write_text(tmp_path / "report.html", "")
    pushed = {"experiments": {"digits": "7"}, "runs": {"digits": "p", "digits/ddpm/paper/s0": "c"}}
    pages = screenshots._pages(tmp_path, pushed, "http://here")
    assert pages["mlflow-runs.png"].address.startswith("http://here/#/experiments/7/runs?")
    assert pages["mlflow-curves.png"].address.startswith("http://here/#/experiments/7/runs/c/model-metrics")
    assert pages["report.png"].address == (tmp_path / "report.html").as_uri()


def test_a_lost_database_is_named(tmp_path):
    write_json(tmp_path / "suite" / "tracking" / "mlflow.json", {"uri": "sqlite:///lost.db"})
    with pytest.raises(BadData, match=r"lost\.db is missing"):
        screenshots.run(tmp_path / "suite", tmp_path / "images")
