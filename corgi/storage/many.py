"""Small requests to an object store, each of which takes some 30 ms: many run at a time, and results are in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

MOST_AT_ONCE = 64
"""Number of requests that run at the same time."""
_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


def each_of(items: Iterable[_Item], read: Callable[[_Item], _Read]) -> Iterator[_Read]:
    """Yield the result of `read` for each item, in order; at most 1,024 results are in memory."""
    left = iter(items)
    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        while some := list(islice(left, 16 * MOST_AT_ONCE)):
            yield from threads.map(read, some)
