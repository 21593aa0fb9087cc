"""The simulated table behaves as a real one: a worker opens it by its index alone, then reads its own row groups, each once."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.feed import rows_of
from benchmarks.simulated_set import CountingDisk, SimulatedSet, commit_beside, commit_simulated, opened
from corgi.feeding.feed import Feed, rows_between
from corgi.feeding.order import Order
from corgi.feeding.packed_rows import CaptionedRows
from corgi.tables.schema import Split

SHARDS, SPLITS, DIM = 64, {"train": 2_200, "val": 40, "test": 3}, 16
LANES, BATCH = 16, 64


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatedSet, CountingDisk]:
    root: Path = tmp_path_factory.mktemp("store")
    return opened(root, *commit_simulated(root, SHARDS, DIM, SPLITS))


def test_a_start_reads_the_stages_manifest_and_its_index(table: tuple[SimulatedSet, CountingDisk]) -> None:
    packed, disk = table
    assert disk.num_reads == 2
    assert [packed.num_rows(split) for split in Split] == [SHARDS * SPLITS[split] for split in Split]
    files = sorted(path.suffix for path in (disk.folder / "pack").rglob("*") if path.is_file())
    assert files == [".json", ".parquet"]  # no shard has a manifest that could be opened


@pytest.mark.parametrize("kind", ["prior", "prior_with_words", "decoder"])
def test_every_kind_of_training_starts_from_two_files_of_each_stage(tmp_path: Path, kind: str) -> None:
    place = tmp_path, *commit_simulated(tmp_path, SHARDS, DIM, SPLITS)
    beside = commit_beside(tmp_path, SHARDS, place[2])
    packed, disk = opened(*place)
    assert sum(rows_of(packed, kind, beside).counts) == SHARDS * SPLITS["train"]
    assert disk.num_reads == (2 if kind == "prior" else 4)


@pytest.mark.law
@pytest.mark.parametrize("world", [1, 4, 16])
def test_each_worker_reads_the_row_groups_of_its_lanes_once(
    table: tuple[SimulatedSet, CountingDisk], world: int
) -> None:
    packed, disk = table
    rows = CaptionedRows(packed, Split.TRAIN)
    order = Order(rows.counts, 0, LANES, 4)
    group = max(second - first for first, second in pairwise(packed.template.starts))
    before = disk.num_bytes
    feed = Feed(rows, order, BATCH, (0, world))
    feed.batch(0)
    feed.close()
    assert disk.num_bytes - before <= 1.2 * 2 * group * (LANES // world)
    feed, before, uids = Feed(rows, order, BATCH, (0, world)), disk.num_bytes, Counter[int]()
    steps = sum(rows.counts) // BATCH // 4
    for batch in feed.batches(0, steps):
        uids.update(batch.positions.tolist())
    feed.close()
    assert max(uids.values()) == 1
    per_lane = steps * BATCH // LANES // 1_100 + 2  # the row groups at both ends of what a lane has read
    footer = packed.template.starts[-1] - packed.template.starts[-2]
    assert disk.num_bytes - before <= per_lane * (group + footer) * (LANES // world)


def test_an_evaluation_reads_the_first_row_groups_of_val_alone(
    table: tuple[SimulatedSet, CountingDisk],
) -> None:
    packed, disk = table
    before = disk.num_reads
    found = rows_between(CaptionedRows(packed, Split.VAL), range(100))
    assert len(found["image"]) == 100
    assert disk.num_reads - before == 2 * 3  # a row group and a footer for each of three shards
