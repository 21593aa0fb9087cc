"""The training table of a run, opened by the index of its stage: its row groups, and how one is read."""

# pyright: reportMissingTypeStubs=false
# pyarrow has no types

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from corgi.feeding.pack import GROUPS_FACT, ROWS_TABLE, WITHHELD_FACT
from corgi.tables.manifest import FileEntry
from corgi.tables.row_groups import RowGroups
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard, row_groups
from corgi.tables.store import Store


@dataclass(frozen=True, slots=True)
class GroupedFile:
    """A shard's table that is read by row group: its file, and where the row groups are in it."""

    stage: str
    path: str
    files: tuple[FileEntry, ...]
    groups: RowGroups

    @classmethod
    def of(cls, shard: ListedShard, table: str) -> Self | None:
        """Return the file of a shard's table; None if the table can only be read whole."""
        groups = row_groups(shard, table)
        if groups is None:
            return None
        files = tuple(entry for entry in shard.files if entry.table == table)
        return cls(shard.stage, shard.path, files, groups)


class Unit(NamedTuple):
    """A row group, as the index of its shard and its index in the shard."""

    shard: int
    group: int


class Units(NamedTuple):
    """Row groups of a training table in its order, as arrays: a table of 40,000 shards has 400,000."""

    shard: Int[np.ndarray, "units"]
    group: Int[np.ndarray, "units"]
    rows: Int[np.ndarray, "units"]
    captioned: Int[np.ndarray, "units"]

    def at(self, number: int) -> Unit:
        """Return one row group by its index."""
        return Unit(int(self.shard[number]), int(self.group[number]))


class PackedSet:
    """The shards of a training table. Each takes a few kilobytes of memory, and no shard's manifest is opened."""

    def __init__(self, store: Store, shards: Iterable[ListedShard]) -> None:
        """Take the shards as listed in their stage's index."""
        self.store = store
        self._shards = list(shards)
        self.names = [shard.shard for shard in self._shards]
        self.num_withheld = 0
        numbers, split = array("q"), list[str]()
        for number, shard in enumerate(self._shards):
            facts = shard.facts
            self.num_withheld += facts[WITHHELD_FACT]
            for group, (name, rows, captioned) in enumerate(facts[GROUPS_FACT]):
                numbers.extend((number, group, rows, captioned))
                split.append(name)
        table = np.frombuffer(numbers, np.int64).reshape(-1, 4)
        names = np.array(split, dtype="U5")
        self._units = {of: Units(*table[names == of.value].T) for of in Split}

    @classmethod
    def open(cls, root: str, stage: str) -> Self:
        """Open a training table by the path of its stage's manifest."""
        store = Store(root)
        return cls(store, store.each_listed(store.read_stage(stage)))

    def units(self, split: Split) -> Units:
        """Return the row groups of a split."""
        return self._units[split]

    def num_rows(self, split: Split) -> int:
        """Return the number of kept pictures of a split."""
        return int(self.units(split).rows.sum())

    def file(self, shard: int) -> GroupedFile:
        """Return the file that contains the rows of a shard."""
        file = GroupedFile.of(self._shards[shard], ROWS_TABLE)
        assert file is not None, f"shard {self.names[shard]} was not packed"
        return file

    def read(self, unit: Unit, columns: Sequence[str]) -> pa.Table:
        """Return columns of a row group after checking its hash."""
        file = self.file(unit.shard)
        return self.store.read_row_group(file, ROWS_TABLE, file.groups, unit.group, columns)
