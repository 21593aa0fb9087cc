"""What a test costs in CPU-seconds, its processes included, and the lanes that follow from it.

Wall time on a busy machine says nothing about a test, so a test's lane follows from the work that it does.
"""

import os
from collections import defaultdict

import psutil
import pytest

SLOW_CPU_S = 2.0
"""A test that takes more, its set-up included, is marked `slow` where it is written."""
LANE_MARKS = ("ray", "flow", "slow")
"""`make test-fast` leaves these out."""


def mark(item: pytest.Item) -> None:
    """Mark laws by name, and what starts the shared Ray by the fixture that starts it."""
    if item.name.startswith(("test_law_", "test_eq_")):
        item.add_marker("law")
    if "ray_local" in getattr(item, "fixturenames", ()):
        item.add_marker("ray")


def is_fast(item: pytest.Item) -> bool:
    """Return whether `make test-fast` runs a test."""
    return not any(item.get_closest_marker(name) for name in LANE_MARKS)


def cpu_s(*, with_living: bool) -> float:
    """Return the CPU-seconds of this process and of its processes that ended; of those that run too if asked."""
    total = sum(os.times()[:4])
    if not with_living:
        return total
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


class Costs:
    """CPU-seconds per test of one session."""

    def __init__(self, num_shown: int) -> None:
        """Show the `num_shown` dearest tests and files at the end, and always the fast tests that are not fast."""
        self._num_shown = num_shown
        self._tests: dict[str, float] = {}
        self._unmarked: list[str] = []

    def now(self) -> float:
        """Return the CPU-seconds so far; the processes that run are looked up only where figures are shown."""
        return cpu_s(with_living=self._num_shown > 0)

    def add(self, item: pytest.Item, cost_s: float) -> None:
        """Take down what a test cost."""
        self._tests[item.nodeid] = cost_s
        if cost_s > SLOW_CPU_S and is_fast(item):
            self._unmarked.append(item.nodeid)

    def lines(self) -> list[str]:
        """Return what the end of a session shows."""
        unmarked = [
            f"{self._tests[name]:7.1f}  {name}: over {SLOW_CPU_S:g} CPU-seconds; mark it slow"
            for name in self._unmarked
        ]
        if not self._num_shown:
            return unmarked
        files: dict[str, float] = defaultdict(float)
        for name, cost_s in self._tests.items():
            files[name.split("::")[0]] += cost_s
        total = f"{sum(files.values()):7.1f}  all"
        return [total, *self._dearest(files), *self._dearest(self._tests), *unmarked]

    def _dearest(self, costs: dict[str, float]) -> list[str]:
        dearest = sorted(costs, key=lambda name: -costs[name])[: self._num_shown]
        return [f"{costs[name]:7.1f}  {name}" for name in dearest]
