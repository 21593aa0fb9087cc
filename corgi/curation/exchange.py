"""Exchange of rows between blocks: rows are grouped by key, and the results are returned to the blocks."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

from corgi.curation.block import BlockPlan
from corgi.flow.tasks import Ref, Tasks, value_of, wait_for

Columns = tuple[np.ndarray, ...]


def cut(part: Int[np.ndarray, "n"], num_parts: int, *columns: np.ndarray) -> list[Columns]:
    """Return the rows of each part, in their original order."""
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(num_parts + 1))
    chosen = [order[low:high] for low, high in itertools.pairwise(ends)]
    return [tuple(column[rows] for column in columns) for rows in chosen]


def joined(pieces: Sequence[Columns]) -> Columns:
    """Return the rows of all pieces, concatenated."""
    return tuple(np.concatenate(columns) for columns in zip(*pieces, strict=True))


def exchanged(
    calls: Tasks,
    sources: Sequence[Sequence[object]],
    pieces_of: Callable[..., list[Columns]],
    num_parts: int,
    label: str,
) -> list[list[Ref]]:
    """Return the pieces of each part; `pieces_of(*source, num_parts)` cuts one source."""
    made = [calls.start_each(pieces_of, num_parts, *source, num_parts) for source in sources]
    wait_for([piece for pieces in made for piece in pieces], label)
    return [list(part) for part in zip(*made, strict=True)]


def flags(plans: Sequence[BlockPlan], found: Sequence[Ref]) -> list[Bool[np.ndarray, "n"]]:
    """Return, block by block, which rows are among the numbers in some results; one result at a time and one byte per row are in memory."""
    marked = np.zeros(sum(plan.num_rows for plan in plans), bool)
    for ref in found:
        marked[value_of(ref)] = True
    starts = [plan.first_row for plan in plans]
    return np.split(marked, starts[1:])
