"""In which order the files of tests run, and which of them one process of `make test` runs together."""

from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.costs import is_fast

HOME = Path(__file__).resolve().parents[2]
RAY = "ray"
"""The unit of all files that start Ray: one process runs them all, so that one Ray is started."""


def file_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.split("::", 1)[0]


@cache
def starts_ray(file: str) -> bool:
    """Return whether a file has a test that uses the shared Ray."""
    return "ray_local" in (HOME / file).read_text(encoding="utf-8")


def unit_of(nodeid: str) -> str:
    """Return what runs together with a test in one process: its file, or all files that start Ray."""
    file = file_of(nodeid)
    return RAY if starts_ray(file) else file


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
