"""A function over many shards whose results are small: by tasks on the cluster where there are many, else in this process."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from corgi.flow.cluster import connect
from corgi.flow.executor import is_in_process
from corgi.flow.tasks import Tasks, value_of, wait_for
from corgi.settings.recipe import Recipe

MOST_HERE = 64
"""Items for which no cluster is started: that takes longer than they do."""

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
    """Yield the results of `function(root, batch)` one after the other, in order.

    Args:
        recipe: says which cluster.
        function: takes the root and a batch; called in any order, and again if a worker is lost.
        items: are cut into batches.
        root: of the store.
        label: names the work on screen.
        size: of a batch.

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
