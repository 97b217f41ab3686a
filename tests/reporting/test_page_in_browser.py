"""The finished page in a real browser: sorting, filtering, curves that go, links that open folds."""

import shutil

import pytest

from pipeline_lib.reporting import report
from pipeline_lib.tracking.browser import NAMES, Browser
from tests.reporting.compared_tree import Grown

pytestmark = pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="Chromium is not installed")
TABLE = "document.querySelector('#scores table.sortable')"
COLUMN = f"[...{TABLE}.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[%d].textContent)"
OUTSIDE = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide'))"
RIGHT = f"{OUTSIDE}.map(e => e.getBoundingClientRect().right)"


def test_tables_sort_and_filter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = Grown([0, 1]).complete()
    for seed in (0, 1):
        tree.run("reg/paper", seed, {10: 20.0})  # nothing at 100 calls
    report.run(tree.folder, tree.experiment)
    with Browser(1040, 900) as browser:
        browser.open((tree.folder / "report.html").resolve().as_uri(), "#scores th button")
        press = f"{TABLE}.tHead.rows[0].cells[2].querySelector('button').click()"
        browser.evaluate(press)
        scores = [float(text.split()[0]) for text in browser.evaluate(COLUMN % 2)]
        assert scores == sorted(scores)
        assert scores[-1] == 20.0  # sorted as text, 20 would stand before 3
        browser.evaluate(press)
        assert [float(text.split()[0]) for text in browser.evaluate(COLUMN % 2)] == sorted(scores, reverse=True)
        browser.evaluate(f"{TABLE}.tHead.rows[0].cells[1].querySelector('button').click()")
        assert browser.evaluate(COLUMN % 1)[-1] == ""  # empty cells are last
        assert browser.evaluate(f"{TABLE}.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "ascending"
        browser.evaluate(
            "var box = document.querySelector('#scores .filter input'); box.value = 'REGULAR sweep-L2';"
            "box.dispatchEvent(new Event('input'))"
        )
        assert browser.evaluate(COLUMN % 0) == ["Regularised (sweep-L2)"]
        assert browser.evaluate("document.querySelector('#scores .filter output').value").startswith("1 of ")
        browser.evaluate(
            "var of = [...document.querySelectorAll('p.same')].find(p => p.nextElementSibling.matches('.filter'));"
            "var bar = of.nextElementSibling; box = bar.querySelector('input');"
            "box.value = of.querySelector('b').textContent;"
            "box.dispatchEvent(new Event('input'))"
        )
        shown, _, every, _ = browser.evaluate("bar.querySelector('output').value").split()
        assert shown == every, "words that all rows share are in every row"
        assert max(browser.evaluate(RIGHT)) <= 1040  # wide tables scroll in boxes of their own


def test_curves_go_and_folds_open(tree):
    built = tree(seeds=(0,)).complete()
    report.run(built.folder, built.experiment)
    drawn = "[...document.querySelectorAll('#errors .plotter g')].map(g => g.dataset.who)"
    with Browser(1040, 900) as browser:
        browser.open((built.folder / "report.html").resolve().as_uri(), "#errors .plotter g")
        assert browser.evaluate(drawn) == ["DDPM", "Other"]
        browser.evaluate("document.querySelector('#errors .plotter input[value=DDPM]').click()")
        assert browser.evaluate(drawn) == ["Other"]
        browser.evaluate(
            "var pick = document.querySelector('#errors .plotter select'); pick.value = 'difference to the control';"
            "pick.dispatchEvent(new Event('change'))"
        )
        assert browser.evaluate(drawn) == ["Other"]
        browser.evaluate("location.hash = '#method-other'")
        browser.settle()
        assert browser.evaluate("document.getElementById('method-other').open")
        assert browser.evaluate("document.querySelectorAll('#method-other .plotter g').length") == 2
        loaded = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
        assert browser.evaluate(loaded) == []
