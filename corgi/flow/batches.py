"""Applies a function with small results to many shards: in tasks on the cluster if there are many, else in this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from corgi.flow.cluster import connect
from corgi.flow.executor import is_in_process
from corgi.flow.tasks import Tasks, value_of, wait_for
from corgi.settings.recipe import Recipe

MOST_HERE = 64
"""Number of items up to which no cluster is started, because that would take longer than the work."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def over_batches(
    recipe: Recipe,
    function: Callable[[str, list[Item]], list[Result]],
    items: Sequence[Item],
    root: str,
    label: str,
    size: int = 16,
) -> Iterator[Result]:
    """Yield the results of `function(root, batch)` one by one, in order.

    Args:
        recipe: determines the cluster.
        function: takes the root and a batch; it is called in any order, and again if a worker is lost.
        items: divided into batches.
        root: root of the store.
        label: name of the work on the screen.
        size: number of items in a batch.

    """
    batches = [list(items[first : first + size]) for first in range(0, len(items), size)]
    if len(items) <= MOST_HERE or is_in_process():
        for batch in batches:
            yield from function(root, batch)
        return
    connect(recipe)
    calls = Tasks()
    refs = [calls.start(function, root, batch) for batch in batches]
    wait_for(refs, label)
    for ref in refs:
        yield from value_of(ref)
