"""Sums over all shards: one task per group of consecutive shards, then a tree of tasks; the driver receives one sum.

Groups and tree depend only on the number of shards, and sums are merged in the order of the shards, so that the bits do not
depend on the cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Protocol, TypeVar

from corgi.flow.tasks import Ref, Tasks, value_of, wait_for
from corgi.tables.embedded import EmbeddedShard

FAN_IN = 8
"""Number of sums that one task merges; that many are in a node's memory at the same time."""
MOST_SHARDS = 64
"""Largest number of shards in a group."""
_GROUPS = 64
"""Number of groups up to which a group has one shard: with fewer shards than that, all are read at the same time."""

Given = Mapping[str, Any]
_Sum = TypeVar("_Sum")


class Merge(Protocol):
    """Merges two sums, of which the second is that of later shards."""

    def __call__(self, before: Any, after: Any, given: Given, /) -> Any:
        """Return the sum of both."""
        ...


def shards_of_a_group(num_shards: int) -> int:
    """Return how many shards one task reads: 1 for up to 64 shards, 64 for 4,096 or more."""
    return max(1, min(MOST_SHARDS, -(-num_shards // _GROUPS)))


def summed(
    function: Callable[..., _Sum], merge: Merge, shards: Sequence[EmbeddedShard], given: Given, label: str
) -> _Sum | None:
    """Return the sum of `function(shard, **given)` over the shards; None without shards.

    Args:
        function: returns a shard's sum; pickled by its name.
        merge: merges two sums.
        shards: in order.
        given: additional arguments of both functions; sent to each node once.
        label: name of the work on the screen.

    """
    if not shards:
        return None
    calls = Tasks()
    shared = calls.start(_same, dict(given))
    step = shards_of_a_group(len(shards))
    level = [
        calls.start(_of_group, function, merge, list(shards[first : first + step]), shared)
        for first in range(0, len(shards), step)
    ]
    wait_for(level, label)
    while len(level) > 1:
        level = _merged(calls, merge, level, shared)
    return value_of(level[0])


def _merged(calls: Tasks, merge: Merge, level: Sequence[Ref], shared: Ref) -> list[Ref]:
    return [
        calls.start(_of_parts, merge, shared, *level[first : first + FAN_IN])
        for first in range(0, len(level), FAN_IN)
    ]


def _same(given: Given) -> Given:
    return given


def _of_group(
    function: Callable[..., _Sum], merge: Merge, shards: Sequence[EmbeddedShard], given: Given
) -> _Sum:
    return reduce(
        lambda before, after: merge(before, after, given), (function(shard, **given) for shard in shards)
    )


def _of_parts(merge: Merge, given: Given, *parts: Any) -> Any:
    return reduce(lambda before, after: merge(before, after, given), parts)
