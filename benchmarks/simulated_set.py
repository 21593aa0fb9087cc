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
from corgi.feeding.packed_rows import LATENTS_TABLE
from corgi.feeding.packed_set import PackedSet, Unit
from corgi.storage.disk import Disk
from corgi.tables.manifest import FileEntry, RowCounts, ShardEntry, ShardManifest, StageManifest
from corgi.tables.row_groups import ROW_GROUPS_FACT, RowGroups, cut, write_row_groups
from corgi.tables.schema import packed
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from corgi.training.autoencoder import AUTOENCODER_FACT

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
        file = self.file(unit.shard)
        return self.store.read_row_group(file, ROWS_TABLE, self.template, unit.group, columns)


def commit_simulated(root: Path, num_shards: int, dim: int, splits: dict[str, int]) -> tuple[str, RowGroups]:
    """Close a stage `pack` of so many shards; return its manifest's path, and the row groups of the one shard there is."""
    split = [name for name, count in splits.items() for _ in range(count)]
    (root / "store").mkdir(parents=True, exist_ok=True)
    with (root / "store" / TEMPLATE).open("wb") as sink:
        template = write_row_groups(sink, _rows(split, dim), sizes_of(split))
    names = [name for name, count in splits.items() for _ in cut(count)]
    groups = [[name, rows, rows] for name, rows in zip(names, template.rows, strict=True)]
    facts = {GROUPS_FACT: groups, WITHHELD_FACT: 0}
    listed = [_listed("pack", _name(number), template, (ROWS_TABLE,), facts) for number in range(num_shards)]
    return _closed(root, "pack", listed), template


def commit_beside(root: Path, num_shards: int, template: RowGroups) -> dict[str, str]:
    """Close stages `autoencoder` and `embed` of as many shards, with row groups of as many rows; return their manifests' paths.

    They are what a decoder, and a prior that reads words, open besides the training table.
    """
    digest = os.urandom(16).hex()
    tables = ("caption_tokens", "image_embeddings", "caption_embeddings")
    towers = {f"tower{number}": {"model": "ViT-B-32", "dim": 512, "image_size": 224} for number in range(3)}
    told = {"towers": towers, "batch_size": 512, "captions": sum(template.rows), "captions_dropped": 0}
    model = _listed("autoencoder", "model", template, ("autoencoder",), {})
    latents, embedded = (
        [_listed(stage, _name(number), template, names, facts) for number in range(num_shards)]
        for stage, names, facts in (
            ("autoencoder", (LATENTS_TABLE,), {AUTOENCODER_FACT: digest, "enlarged": 0}),
            ("embed", tables, told),
        )
    )
    return {
        "autoencoder": _closed(root, "autoencoder", [model, *latents]),
        "embed": _closed(root, "embed", embedded),
    }


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


def _name(number: int) -> str:
    return f"{number:05d}"


def _closed(root: Path, stage: str, listed: list[ListedShard]) -> str:
    """Close a stage and return its manifest's path."""
    store, rows = Store(root), sum(shard.kept for shard in listed)
    manifest = StageManifest(
        stage=stage,
        key="simulated",
        version=1,
        code="c",
        commit=None,
        settings={},
        inputs={},
        shards=tuple(ShardEntry(shard.shard, shard.path, shard.digest) for shard in listed),
        rows=RowCounts(rows_in=rows, kept=rows),
    )
    return store.close(store.indexed(manifest, listed)).path


def _listed(
    stage: str, name: str, template: RowGroups, tables: tuple[str, ...], facts: dict[str, Any]
) -> ListedShard:
    """Return what a shard's manifest would say; hashes are as random as real ones, so that the index is as large.

    The first table is read by row group.
    """
    groups = {**template.as_fact(), "digests": os.urandom(len(template.digests)).hex()}
    key, rows = os.urandom(16).hex(), sum(template.rows)
    files = tuple(
        FileEntry(
            table=table,
            name=f"{os.urandom(6).hex()}-{table}.parquet",
            size=template.starts[-1],
            sha256=os.urandom(32).hex(),
            rows=rows,
        )
        for table in tables
    )
    manifest = ShardManifest(
        stage=stage,
        shard=name,
        key=key,
        version=1,
        code="c",
        settings={},
        inputs={},
        files=files,
        rows=RowCounts(rows_in=rows, kept=rows),
        facts={**facts, ROW_GROUPS_FACT: {tables[0]: groups}},
    )
    return ListedShard.of(manifest.at(f"{stage}/{key}/manifest-0.json"))
