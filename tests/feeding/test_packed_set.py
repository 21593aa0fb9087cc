"""A training table is opened by its index: row groups by split, in the order of the shards."""

from pathlib import Path

import pytest

from corgi.feeding.packed_set import PackedSet
from corgi.tables.run import Run
from corgi.tables.schema import Split
from tests.support.objectives import commit_pack
from tests.support.tables import tiny_run


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Run, PackedSet]:
    run = tiny_run(tmp_path)
    commit_pack(run)
    return run, PackedSet.open(str(run.store.root.parent), run.stages()["pack"].path)


@pytest.mark.law
@pytest.mark.parametrize("split", list(Split))
def test_the_row_groups_of_a_split_are_its_kept_pictures(packed: tuple[Run, PackedSet], split: Split) -> None:
    run, table = packed
    kept = [uid for shard in run.embedded() for uid in shard.images(split)["uid"].to_pylist()]
    units = table.units(split)
    read = [table.read(units.at(number), ["uid", "split"]) for number in range(len(units.rows))]
    assert [rows.num_rows for rows in read] == units.rows.tolist()
    assert [uid for rows in read for uid in rows["uid"].to_pylist()] == kept
    assert {name for rows in read for name in rows["split"].to_pylist()} <= {split.value}
    assert table.num_rows(split) == len(kept)


def test_shards_are_named_as_the_embedded_ones(packed: tuple[Run, PackedSet]) -> None:
    run, table = packed
    assert table.names == [shard.shard for shard in run.shards("embed")]
    assert table.num_withheld == 0
