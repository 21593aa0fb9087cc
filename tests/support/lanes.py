"""In which order the files of tests run, and which of them one process of `make test` runs together."""

from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.costs import is_fast

HOME = Path(__file__).resolve().parents[2]
RAY = "ray"
"""The unit of all files that start Ray: one process runs them all, so that one Ray is started."""
STRANGERS = "strangers"
"""The unit of all files that load what was exported, for the one interpreter that tests/support/strangers.py starts."""
_FIXTURES = {"ray_local": RAY, "strangers: Strangers": STRANGERS}


def file_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.split("::", 1)[0]


@cache
def shared_unit(file: str) -> str | None:
    """Return the unit that a file shares with others for the process that its tests ask for."""
    text = (HOME / file).read_text(encoding="utf-8")
    return next((unit for fixture, unit in _FIXTURES.items() if fixture in text), None)


def unit_of(nodeid: str) -> str:
    """Return what runs together with a test in one process: its file, or all files that share a process it asks for."""
    file = file_of(nodeid)
    return shared_unit(file) or file


def sort_files(items: list[pytest.Item]) -> None:
    """Put files that start Ray first, then those with slow tests, so that no process is left with a long file at the end."""
    places: dict[str, int] = {}
    for item in items:
        file = file_of(item.nodeid)
        place = 0 if item.get_closest_marker("ray") else 2 if is_fast(item) else 1
        places[file] = min(place, places.get(file, place))
    items.sort(key=lambda item: places[file_of(item.nodeid)])


class Units(LoadScopeScheduling):
    """Hands out units of tests in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
