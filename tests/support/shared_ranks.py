"""Threads of this process that take themselves for the workers of one training."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from corgi.training import ranks
from tests.support.waiting import PATIENCE_S

_Value = TypeVar("_Value")


def on_each_rank(num_workers: int, function: Callable[[], _Value]) -> list[_Value]:
    """Return what a function returns on each of so many workers, which exchange values in memory."""
    own, met = threading.local(), threading.Barrier(num_workers, timeout=PATIENCE_S)
    given: list[Any] = [None] * num_workers

    def gathered(value: Any, group: Any = None) -> list[Any]:
        given[own.rank] = value
        met.wait()
        found = list(given)
        met.wait()
        return found

    def called(number: int) -> _Value:
        own.rank = number
        return function()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(num_workers) as threads:
        patch.setattr(ranks, "rank", lambda: own.rank)
        patch.setattr(ranks, "world_size", lambda: num_workers)
        patch.setattr(ranks, "gathered", gathered)
        return list(threads.map(called, range(num_workers)))
