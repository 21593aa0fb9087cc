"""The training table of a run, opened by the index of its stage: which row groups there are, and how one is read."""

# pyright: reportMissingTypeStubs=false
# pyarrow has no types

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import pyarrow as pa

from corgi.feeding.pack import GROUPS_FACT, ROWS_TABLE, WITHHELD_FACT, Group
from corgi.tables.manifest import FileEntry
from corgi.tables.row_groups import RowGroups
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard, row_groups
from corgi.tables.store import Store


@dataclass(frozen=True, slots=True)
class GroupedFile:
    """A shard's table that is read by row group: what names its file, and where the row groups are."""

    stage: str
    path: str
    files: tuple[FileEntry, ...]
    groups: RowGroups
    splits: tuple[Group, ...] = ()

    @classmethod
    def of(cls, shard: ListedShard, table: str) -> Self | None:
        """Return that of a shard; None where its table is read whole."""
        groups = row_groups(shard, table)
        if groups is None:
            return None
        files = tuple(entry for entry in shard.files if entry.table == table)
        splits = tuple(Group(*group) for group in shard.facts.get(GROUPS_FACT, ()))
        return cls(shard.stage, shard.path, files, groups, splits)


class Unit(NamedTuple):
    """A row group, by the number of its shard and its own."""

    shard: int
    group: int


class PackedSet:
    """The shards of a training table. Per shard about half a kilobyte is held, and no manifest of a shard is opened."""

    def __init__(self, store: Store, shards: Iterable[ListedShard]) -> None:
        """Take the shards as their stage's index lists them."""
        self.store = store
        self.names: list[str] = []
        self.files: list[GroupedFile] = []
        self.num_withheld = 0
        for shard in shards:
            file = GroupedFile.of(shard, ROWS_TABLE)
            assert file is not None, f"shard {shard.shard} was not packed"
            self.names.append(shard.shard)
            self.files.append(file)
            self.num_withheld += shard.facts[WITHHELD_FACT]

    @classmethod
    def open(cls, root: str, stage: str) -> Self:
        """Open a training table by the path of its stage's manifest."""
        store = Store(root)
        return cls(store, store.each_listed(store.read_stage(stage)))

    def units(self, split: Split) -> list[tuple[Unit, Group]]:
        """Return the row groups of a split."""
        return [
            (Unit(shard, number), group)
            for shard, file in enumerate(self.files)
            for number, group in enumerate(file.splits)
            if group.split == split
        ]

    def num_rows(self, split: Split) -> int:
        """Return the kept pictures of a split."""
        return sum(group.rows for _, group in self.units(split))

    def read(self, unit: Unit, columns: Sequence[str]) -> pa.Table:
        """Return columns of a row group, compared with its hash."""
        file = self.files[unit.shard]
        return self.store.read_row_group(file, ROWS_TABLE, file.groups, unit.group, columns)
