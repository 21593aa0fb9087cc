"""A table is read by row group: the rows that were written, no other byte, and never a damaged one."""

import io
import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.settings.errors import StorageError
from corgi.tables.manifest import RowCounts
from corgi.tables.row_groups import ROWS, RowGroups, cut, write_row_groups
from corgi.tables.stage_index import row_groups
from corgi.tables.store import ShardTask, Store
from tests.support.flips import flipped_reads

DIM = 16


def table(num_rows: int) -> pa.Table:
    rng = np.random.default_rng(num_rows)
    vectors = pa.array(rng.standard_normal(num_rows * DIM).astype(np.float16))
    offsets = pa.array(np.minimum(np.arange(num_rows + 1) * 2, 2 * num_rows), pa.int32())
    values = pa.array(rng.standard_normal(2 * num_rows * DIM).astype(np.float16))
    return pa.table(
        {
            "uid": [f"{n:032x}" for n in range(num_rows)],
            "image": pa.FixedSizeListArray.from_arrays(vectors, DIM),
            "full": pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, DIM)),
        }
    )


@pytest.mark.law
@given(num_rows=st.integers(0, 60_000))
def test_row_groups_are_of_a_thousand_to_two_thousand_rows_one_apart(num_rows: int) -> None:
    sizes = cut(num_rows)
    assert sum(sizes) == num_rows
    if num_rows >= ROWS:
        assert min(sizes) >= ROWS
        assert max(sizes) < 2 * ROWS
        assert max(sizes) - min(sizes) <= 1
    else:
        assert len(sizes) == bool(num_rows)


@pytest.mark.law
@pytest.mark.parametrize("sizes", [[], [1], [5, 7, 3], [40]])
def test_each_row_group_is_read_alone_and_from_its_own_bytes(sizes: list[int]) -> None:
    whole, sink = table(sum(sizes)), io.BytesIO()
    groups = RowGroups.of_fact(write_row_groups(sink, whole, sizes).as_fact())
    data = sink.getvalue()
    assert pq.read_table(io.BytesIO(data)).equals(whole)
    assert (groups.starts[0], groups.starts[-1]) == (0, len(data))
    first = 0
    for number, size in enumerate(sizes):
        asked: list[tuple[int, int]] = []

        def read(offset: int, length: int, asked: list[tuple[int, int]] = asked) -> bytes:
            asked.append((offset, offset + length))
            return data[offset : offset + length]

        assert groups.read(number, read).equals(whole.slice(first, size))
        assert groups.read(number, read, ["full"]).equals(whole.slice(first, size).select(["full"]))
        own, footer = list(pairwise(groups.starts))[number], tuple(groups.starts)[-2:]
        assert asked == [own, footer] * 2
        first += size


def committed(root: str) -> tuple[Store, pa.Table]:
    store, whole = Store(root), table(300)
    with store.attempt(ShardTask(root, "pack", "00000", "k", 1, "c", {})) as attempt:
        facts = attempt.write_row_groups("rows", whole, [100, 150, 50])
        attempt.commit(RowCounts(rows_in=300, kept=300), facts)
    return store, whole


def test_a_damaged_row_group_is_one_line_and_the_others_are_read(tmp_path) -> None:
    store, whole = committed(str(tmp_path))
    manifest = store.shard("pack", "k")
    assert manifest is not None
    groups, path = row_groups(manifest, "rows"), store.path(manifest, "rows")
    assert groups is not None
    data, rng = path.read_bytes(), random.Random(0)
    spans = list(pairwise(groups.starts))
    with flipped_reads(store.storage) as flipped:
        for flip in range(1_000):
            place = rng.randrange(len(data))
            flipped[:] = [place, 1 << rng.randrange(8)]
            harmed = next(part for part, (first, last) in enumerate(spans) if first <= place < last)
            number = flip % 3
            if harmed in (number, len(spans) - 1):
                with pytest.raises(StorageError) as found:
                    store.read_row_group(manifest, "rows", groups, number)
                assert str(found.value).startswith(f"{path}: bytes ")
                assert "other shards are safe; rerun with --only pack --force" in str(found.value)
                assert "\n" not in str(found.value)
            else:
                read = store.read_row_group(manifest, "rows", groups, number)
                assert read.equals(whole.slice((0, 100, 250)[number], groups.rows[number]))
    path.write_bytes(data[:-20])
    with pytest.raises(StorageError, match="do not match their sha256"):
        store.read_row_group(manifest, "rows", groups, 2)
    path.unlink()
    with pytest.raises(StorageError, match="is listed but missing"):
        store.read_row_group(manifest, "rows", groups, 0)


def test_sizes_that_are_not_the_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="row groups have 3 rows, but the table has 4"):
        write_row_groups(io.BytesIO(), table(4), [1, 2])
