"""Numbers of kept pictures of a shard per split, and of those with a caption for training: counted once, when the selection is committed."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from corgi.tables.arrow import pc
from corgi.tables.schema import Split

SPLITS_FACT = "splits"
"""Fact of a selection: its counts by split. Selections of version 0.1 have none."""


class SplitCount(NamedTuple):
    """Row counts of one split of a shard."""

    images: int
    """Number of kept pictures."""
    captioned: int
    """Number of kept pictures with a full caption that may be used for training."""


def learnable(selection: pa.Table, captions: pa.Table) -> pa.ChunkedArray:
    """Return, row by row of a selection, whether its picture is kept and has a full caption that may be used for training.

    `captions` has uid and kind of every caption with a vector.
    """
    full = captions.filter(pc.equal(captions["kind"], "full"))["uid"].combine_chunks()
    allowed = pc.and_(selection["keep"], pc.fill_null(selection["captioned"], True))
    return pc.and_(allowed, pc.is_in(selection["uid"], value_set=full))


def split_counts(split: pa.ChunkedArray, selection: pa.Table, captions: pa.Table) -> dict[str, SplitCount]:
    """Count a shard's rows; `split` has the split of each row of the selection, the tables are those of `learnable`."""
    learned = learnable(selection, captions)
    of = {name.value: pc.equal(split, name.value) for name in Split}
    return {
        name: SplitCount(_true(pc.and_(rows, selection["keep"])), _true(pc.and_(rows, learned)))
        for name, rows in of.items()
    }


def as_facts(counts: Mapping[str, SplitCount]) -> dict[str, object]:
    """Return the counts as a selection's facts."""
    return {SPLITS_FACT: {name: count._asdict() for name, count in counts.items()}}


def of_facts(facts: Mapping[str, Any]) -> dict[str, SplitCount] | None:
    """Return the counts in a selection's facts; None if they have none."""
    told = facts.get(SPLITS_FACT)
    return None if told is None else {name: SplitCount(**count) for name, count in told.items()}


def _true(values: pa.ChunkedArray) -> int:
    return int(pc.sum(values).as_py() or 0)
