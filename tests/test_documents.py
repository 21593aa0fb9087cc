"""What ARCHITECTURE.md and CONTRIBUTING.md name is there: files, names of registries, and the walks with their number of files."""

import re
from pathlib import Path

import pytest

from tests.support import house

PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md")
WALK = re.compile(
    r"^\*\*(?P<title>[^*]+)\*\* \((?P<count>\d+) files\)$(?P<text>.*?)(?=^\*\*|^##|^`Rejection`)", re.M | re.S
)
LEAVES = re.compile(r"\[[^\]]*\]")
"""What a walk names in brackets: called once, and not counted."""


def page(name: str) -> str:
    return (house.HOME / name).read_text(encoding="utf-8")


def located(path: str) -> Path | None:
    """Return a named file: paths of modules are below `corgi` or below the repository."""
    places = (house.HOME / path, house.HOME / "corgi" / path)
    return next((place for place in places if place.exists()), None)


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    named = set(re.findall(r"`([a-z_0-9]+/[a-z_0-9/.]+\.(?:py|j2|md|yaml))`", page(name)))
    assert len(named) > 10
    assert [path for path in sorted(named) if located(path) is None] == []


def walks() -> dict[str, tuple[int, list[str]]]:
    """Return of each walk the number of files it states, and the files it names in order."""
    found = {}
    for walk in WALK.finditer(page("ARCHITECTURE.md")):
        text = LEAVES.sub("", walk["text"])
        files = list(dict.fromkeys(re.findall(r"`([a-z_0-9]+/[a-z_0-9/]+\.py)`", text)))
        found[walk["title"]] = int(walk["count"]), files
    return found


def test_a_walk_names_as_many_files_as_it_states_and_each_is_linked_to_another_of_it() -> None:
    modules = {module.name: module for module in house.modules()}
    assert len(walks()) == 4
    for title, (count, files) in walks().items():
        assert len(files) == count, title
        names = {_module(path) for path in files}
        linked = {(one, other) for one in names for other in modules[one].imports(names)}
        alone = {name for name in names if name.startswith("corgi.")} - {
            name for pair in linked for name in pair
        }
        assert alone == set(), title


def _module(path: str) -> str:
    place = located(path)
    assert place is not None, path
    return ".".join(place.relative_to(house.HOME).with_suffix("").parts)


def test_registries_that_the_table_names_are_in_the_files_it_names() -> None:
    rows = [line for line in page("CONTRIBUTING.md").splitlines() if line.startswith("| a ")]
    assert len(rows) == 9
    for row in rows:
        files = [house.HOME / path for path in re.findall(r"`(corgi/[^`]+\.py)`", row)]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        names = re.findall(r"`([A-Z][A-Z_]{3,}|[A-Z][a-z]+[A-Z]\w+)`", row)
        assert [name for name in names if name not in text] == [], row
