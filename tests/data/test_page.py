import re

from pipeline_lib import registry
from tests.data.page import PAGE, rows, written

ANEW = "write the tables anew with `python -m tests.data.page`"


def test_disk_is_as_the_recipes_say() -> None:
    assert written("disk", PAGE.read_text()) == rows("disk"), ANEW


def test_bad_inputs_are_as_they_are_met() -> None:
    assert written("bad inputs", PAGE.read_text()) == rows("bad inputs"), ANEW


def test_every_recipe_is_described_and_every_link_is_there() -> None:
    text = PAGE.read_text()
    first = text.partition("<!--")[0]
    assert [name for name in registry.names("data/recipes") if f"`{name}`" not in first] == []
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (PAGE.parent / link).exists(), link
