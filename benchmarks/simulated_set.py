"""A training table of any number of shards whose index is real and whose rows are those of one shard, whichever is read.

No manifest of a shard is there at all: whoever opened one would fail.
"""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from typing_extensions import override

from corgi.feeding.pack import GROUPS_FACT, ROWS_TABLE, WITHHELD_FACT, sizes_of
from corgi.feeding.packed_set import PackedSet, Unit
from corgi.storage.disk import Disk
from corgi.tables.manifest import FileEntry, RowCounts, ShardEntry, StageManifest
from corgi.tables.row_groups import ROW_GROUPS_FACT, RowGroups, cut, write_row_groups
from corgi.tables.schema import packed
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store

SPLITS = {"train": 8_491, "val": 500, "test": 500}
"""Kept pictures of a shard by split."""
TEMPLATE = "template.parquet"


class CountingDisk(Disk):
    """A disk that counts what is read, and gives one file's bytes for every file of rows."""

    def __init__(self, folder: Path) -> None:
        """Start at nothing read."""
        super().__init__(folder)
        self.num_bytes = self.num_reads = 0
        self._lock = threading.Lock()

    @override
    def read(self, name: str) -> bytes:
        return self._counted(super().read(name))

    @override
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._counted(super().read_range(TEMPLATE, offset, length))

    def _counted(self, data: bytes) -> bytes:
        with self._lock:  # loaders are threads
            self.num_bytes, self.num_reads = self.num_bytes + len(data), self.num_reads + 1
        return data


class SimulatedSet(PackedSet):
    """A training table that reads each row group out of the one shard there is."""

    template: RowGroups

    @override
    def read(self, unit: Unit, columns: Any) -> pa.Table:
        file = self.files[unit.shard]
        return self.store.read_row_group(file, ROWS_TABLE, self.template, unit.group, columns)


def commit_simulated(root: Path, num_shards: int, dim: int, splits: dict[str, int]) -> tuple[str, RowGroups]:
    """Close a stage `pack` of so many shards; return its manifest's path, and the row groups of the one shard there is."""
    store = Store(root)
    split = [name for name, count in splits.items() for _ in range(count)]
    sizes = sizes_of(split)
    (root / "store").mkdir(parents=True, exist_ok=True)
    with (root / "store" / TEMPLATE).open("wb") as sink:
        template = write_row_groups(sink, _rows(split, dim), sizes)
    listed = [_listed(number, template, splits) for number in range(num_shards)]
    manifest = StageManifest(
        stage="pack",
        key="simulated",
        version=1,
        code="c",
        commit=None,
        settings={},
        inputs={},
        shards=tuple(ShardEntry(shard.shard, shard.path, shard.digest) for shard in listed),
        rows=RowCounts(rows_in=len(split) * num_shards, kept=len(split) * num_shards),
    )
    return store.close(store.indexed(manifest, listed)).path, template


def opened(root: Path, stage: str, template: RowGroups) -> tuple[SimulatedSet, CountingDisk]:
    """Open a simulated table as a worker does; return it with the disk that counts what is read."""
    disk = CountingDisk(root / "store")
    store = Store(root, storage=disk)
    found = SimulatedSet(store, store.each_listed(store.read_stage(stage)))
    found.template = template
    return found, disk


def _rows(split: list[str], dim: int) -> pa.Table:
    rng, count = np.random.default_rng(0), len(split)
    image, text = (rng.standard_normal((count, dim), np.float32).astype(np.float16) for _ in range(2))
    ones, none = np.arange(count + 1, dtype=np.int32), np.zeros(count + 1, np.int32)
    columns = {
        "uid": [f"{number:032x}" for number in range(count)],
        "split": split,
        "image": _vectors(image),
        "full": pa.ListArray.from_arrays(ones, _vectors(text)),
        "coarse": pa.ListArray.from_arrays(none, _vectors(text[:0])),
        "full_row": pa.ListArray.from_arrays(ones, pa.array(ones[:-1])),
        "coarse_row": pa.ListArray.from_arrays(none, pa.array(ones[:0])),
    }
    return pa.table(columns, schema=packed(dim))


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _listed(number: int, template: RowGroups, splits: dict[str, int]) -> ListedShard:
    """Return what a shard's manifest would say; hashes are as random as real ones, so that the index is as large."""
    groups = {**template.as_fact(), "digests": os.urandom(len(template.digests)).hex()}
    names = [name for name, count in splits.items() for _ in cut(count)]
    facts = {
        GROUPS_FACT: [[name, rows, rows] for name, rows in zip(names, template.rows, strict=True)],
        WITHHELD_FACT: 0,
        ROW_GROUPS_FACT: {ROWS_TABLE: groups},
    }
    key, rows = os.urandom(16).hex(), sum(template.rows)
    file = FileEntry(
        table=ROWS_TABLE,
        name=f"{os.urandom(6).hex()}-{ROWS_TABLE}.parquet",
        size=template.starts[-1],
        sha256=os.urandom(32).hex(),
        rows=rows,
    )
    return ListedShard(
        "pack",
        f"{number:05d}",
        f"pack/{key}/manifest-0.json",
        os.urandom(16).hex(),
        RowCounts(rows_in=rows, kept=rows),
        (file,),
        facts,
    )
