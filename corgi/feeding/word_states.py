"""The word encodings of captions, read from the embed stage's tables: by row group, or whole from shards of version 0.1."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from corgi.feeding.captions import MAX_CAPTIONS
from corgi.feeding.packed_set import GroupedFile
from corgi.tables.stage_index import ListedShard, row_groups
from corgi.tables.store import Store

TOKENS_TABLE = "caption_tokens"


class WordStates:
    """The token states of one text encoder for the captions of each shard."""

    def __init__(
        self, store: Store, names: Sequence[str], embedded: Iterable[ListedShard], encoder: str
    ) -> None:
        """Take the embedded shards, which are matched by name; states are read on request."""
        by_name = {shard.shard: shard for shard in embedded}
        self._store, self._column = store, f"{encoder}/tokens"
        self._shards = [by_name[name] for name in names]
        self.are_grouped = all(row_groups(shard, TOKENS_TABLE) is not None for shard in self._shards)
        """Whether every shard is read by row group; a shard of version 0.1 is read whole."""

    def of(
        self, shard: int, rows: Int[np.ndarray, "captions"], uids: Sequence[str]
    ) -> list[Float[np.ndarray, "tokens width"]]:
        """Return the states of a shard's captions at some rows, half floats; `uids` are the uids of their pictures.

        Raises:
            AssertionError: the states belong to other captions.

        """
        if not len(rows):
            return []
        table, rows = self._read(shard, rows)
        chosen = table.take(pa.array(rows))
        if chosen["uid"].to_pylist() != list(uids):
            raise AssertionError(
                f"shard {self._shards[shard].shard}: caption vectors and word encodings are not of the same captions"
            )
        lists = chosen[self._column].combine_chunks()
        flat = lists.flatten()
        states = np.asarray(flat.flatten()).reshape(-1, flat.type.list_size)
        ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))
        return [states[first:last] for first, last in pairwise([0, *ends.tolist()])]

    @cached_property
    def width(self) -> int:
        """Return the number of values per token."""
        layout = self._store.schema(self._shards[0], TOKENS_TABLE)
        return layout.field(self._column).type.value_type.list_size

    def _read(
        self, shard: int, rows: Int[np.ndarray, "captions"]
    ) -> tuple[pa.Table, Int[np.ndarray, "captions"]]:
        """Return the concatenated row groups that contain some rows, and the rows' indices in the result."""
        columns, file = ["uid", self._column], GroupedFile.of(self._shards[shard], TOKENS_TABLE)
        if file is None:
            return self._store.read(self._shards[shard], TOKENS_TABLE, columns), rows
        ends = np.cumsum(np.array(file.groups.rows, np.int64))
        group = np.searchsorted(ends, rows, side="right")
        groups = np.unique(group)
        tables = [
            self._store.read_row_group(file, TOKENS_TABLE, file.groups, int(number), columns)
            for number in groups
        ]
        sizes = np.array([table.num_rows for table in tables], np.int64)
        begins = np.cumsum(sizes) - sizes
        at = np.searchsorted(groups, group)
        return pa.concat_tables(tables), rows - (ends - np.array(file.groups.rows))[group] + begins[at]


def side_by_side(
    states: Sequence[Float[np.ndarray, "tokens width"]], counts: Int[np.ndarray, "rows"], width: int
) -> np.ndarray:
    """Arrange the states of each row's captions as [rows, MAX_CAPTIONS] of arrays [tokens, width]; unused slots are empty arrays."""
    listed = np.empty((len(counts), MAX_CAPTIONS), dtype=object)
    empty = np.zeros((0, width), np.float16)
    for cell in np.ndindex(listed.shape):
        listed[cell] = empty
    remaining = iter(states)
    for row, count in enumerate(counts.tolist()):
        for slot in range(count):
            listed[row, slot] = next(remaining)
    return listed
