"""A file in blocks: what is read is what was written, or an error; what is not asked for is not read."""

import hashlib
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corgi.settings.errors import StorageError
from corgi.tables import attempt as attempts
from corgi.tables import blocks
from corgi.tables.blocks import BlockFile, BlockHashes
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store
from tests.support.flips import flipped_reads

BLOCK = 4096
NUM_ROWS, NUM_FLIPS, ROW_GROUP = 300, 1000, 50
SMALL = ["uid", "sha256"]


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WHOLE_BYTES", BLOCK)
        patch.setattr(blocks, "PIECE_BYTES", BLOCK // 4)
        patch.setattr(blocks, "_SPAN_BYTES", 3 * BLOCK)
        patch.setattr(attempts, "PICTURE_ROW_GROUP_ROWS", ROW_GROUP)
        yield


@given(
    st.lists(st.binary(max_size=3 * BLOCK), max_size=5),
    st.lists(st.tuples(st.integers(0, 8 * BLOCK), st.integers(0, 8 * BLOCK)), max_size=5),
)
def test_law_any_range_is_what_was_written_in_whatever_parts(
    parts: list[bytes], ranges: list[tuple[int, int]]
) -> None:
    hashes, whole = BlockHashes(), b"".join(parts)
    for part in parts:
        hashes.update(memoryview(part))
    digests = hashes.text(len(whole))
    assert bool(digests) == (len(whole) > BLOCK)
    if not digests:
        return
    size, _, each = digests.partition("/")
    assert len(each) == 32 * -(-len(whole) // int(size))
    assert len(each) <= 32 * blocks.MOST_BLOCKS
    file = BlockFile(len(whole), digests, lambda first, length: whole[first : first + length])
    for first, length in ranges:
        assert file.seek(first) == first
        assert file.read(length) == whole[first : first + length]
    assert file.seek(0, io.SEEK_END) == len(whole)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, ShardManifest, pa.Table]:
    draw = random.Random(7)
    table = pa.table(
        {
            "uid": [f"{draw.getrandbits(128):032x}" for _ in range(NUM_ROWS)],
            "image": [draw.randbytes(3000) for _ in range(NUM_ROWS)],
            "sha256": [f"{draw.getrandbits(256):064x}" for _ in range(NUM_ROWS)],
        }
    )
    store = Store(tmp_path)
    with store.attempt(ShardTask(store.location, "download", "00000", "key", 1, "code", {})) as attempt:
        attempt.write_table("images", table)
        return store, attempt.commit(RowCounts(rows_in=NUM_ROWS, kept=NUM_ROWS)), table


def test_some_columns_are_read_without_the_rest_of_the_file(
    stored: tuple[Store, ShardManifest, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest, table = stored
    read: list[int] = []
    real = store.storage.read_range

    def counted(name: str, offset: int, length: int) -> bytes:
        read.append(length)
        return real(name, offset, length)

    monkeypatch.setattr(store.storage, "read_range", counted)
    assert store.read(store.read_shard(manifest.path), "images", SMALL).equals(table.select(SMALL))
    assert store.schema(manifest, "images").equals(table.schema)
    assert 0 < sum(read) < manifest.files[0].size / 4
    read.clear()
    assert store.read(manifest, "images").equals(table)
    assert store.read(manifest, "images", ["image", "uid"]).equals(table.select(["image", "uid"]))


@given(places=st.lists(st.integers(0, NUM_ROWS - 1), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_law_rows_are_those_at_the_places_in_their_order(
    stored: tuple[Store, ShardManifest, pa.Table], places: list[int]
) -> None:
    store, manifest, table = stored
    one_block = manifest.model_copy(update={"files": (manifest.files[0].model_copy(update={"blocks": ""}),)})
    expected = table.select(["image", "uid"]).take(pa.array(places, pa.int64())).to_pydict()
    for told in (manifest, one_block, ListedShard.of(manifest)):
        assert store.read_rows(told, "images", places, ["image", "uid"]).to_pydict() == expected


@pytest.mark.parametrize("is_listed", [False, True])
def test_rows_are_read_without_the_other_row_groups(
    stored: tuple[Store, ShardManifest, pa.Table], is_listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the shard is known by its stage's index, which holds no hashes of blocks."""
    store, committed, table = stored
    manifest = ListedShard.of(committed) if is_listed else committed
    read: list[int] = []
    real = store.storage.read_range
    monkeypatch.setattr(store.storage, "read_range", lambda *asked: read.append(asked[2]) or real(*asked))
    group = range(2 * ROW_GROUP, 3 * ROW_GROUP)
    found = store.read_rows(manifest, "images", list(group), ["image"])
    assert found.equals(table.select(["image"]).slice(group.start, ROW_GROUP))
    footer = 2**16 + BLOCK  # Arrow reads so much at once from the end of a file
    pictures = sum(map(len, found["image"].to_pylist()))
    assert pictures <= sum(read) <= pictures + footer + 4 * BLOCK
    read.clear()
    assert store.read_rows(manifest, "images", [], ["image"]).num_rows == 0
    assert sum(read) <= footer


@pytest.mark.law
@pytest.mark.slow
def test_law_a_flipped_bit_anywhere_is_an_error_or_was_not_read_by_rows(
    stored: tuple[Store, ShardManifest, pa.Table],
) -> None:
    store, manifest, table = stored
    size, draw, found, lines = manifest.files[0].size, random.Random(5), 0, set[str]()
    expected = table.select(["image"])
    with flipped_reads(store.storage) as flipped:
        for _ in range(NUM_FLIPS):
            places = draw.sample(range(NUM_ROWS), 3)
            flipped[:] = [draw.randrange(size), 1 << draw.randrange(8)]
            try:
                rows = store.read_rows(manifest, "images", places, ["image"])
                assert rows.equals(expected.take(pa.array(places)).combine_chunks())
            except StorageError as error:
                lines.add(re.sub("[0-9]+", "N", str(error).partition(": ")[2].partition(";")[0]))
                found += 1
    assert lines == {"bytes N to N do not match their shaN"}
    assert 0 < found < NUM_FLIPS


@pytest.mark.law
def test_law_a_flipped_bit_anywhere_is_an_error_or_was_not_read(
    stored: tuple[Store, ShardManifest, pa.Table],
) -> None:
    store, manifest, table = stored
    path = store.root / store.file_name(manifest, manifest.files[0])
    whole, expected = path.read_bytes(), table.select(SMALL)
    draw, found, lines = random.Random(3), 0, set[str]()
    used = (range(2 * BLOCK), range(len(whole) - 4 * BLOCK, len(whole)))
    with flipped_reads(store.storage) as flipped:
        for flip in range(NUM_FLIPS):
            place = draw.choice(used[flip % 2]) if flip % 4 < 3 else draw.randrange(len(whole))
            flipped[:] = [place, 1 << draw.randrange(8)]
            try:
                assert store.read(manifest, "images", SMALL).equals(expected)
            except StorageError as error:
                lines.add(re.sub("[0-9]+", "N", str(error).partition(": ")[2]))
                found += 1
    assert found > NUM_FLIPS / 2
    told = "other shards are safe; rerun with --only download --force"
    assert lines == {f"bytes N to N do not match their shaN; {told}"}
    path.write_bytes(whole[:-1])
    with pytest.raises(StorageError, match="its manifest says"):
        store.read(manifest, "images", SMALL)
    path.unlink()
    with pytest.raises(StorageError, match="listed but missing"):
        store.read(manifest, "images", SMALL)


def test_a_file_of_one_block_and_an_older_manifest_are_read_whole(
    stored: tuple[Store, ShardManifest, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest, table = stored
    older = manifest.model_copy(update={"files": (manifest.files[0].model_copy(update={"blocks": ""}),)})
    monkeypatch.setattr(store.storage, "read_range", lambda *asked: pytest.fail(f"{asked} was read"))
    assert store.read(older, "images", SMALL).equals(table.select(SMALL))
    assert older.digest == manifest.digest


@pytest.mark.parametrize("size", [1, BLOCK, 5 * BLOCK + 3, 200 * BLOCK])
def test_law_blocks_are_few_and_no_larger_than_that_needs(size: int) -> None:
    block = blocks.block_bytes(size)
    assert -(-size // block) <= blocks.MOST_BLOCKS
    assert block == blocks.PIECE_BYTES or -(-size // (block // 2)) > blocks.MOST_BLOCKS


def test_hashes_that_name_no_size_are_those_of_the_blocks_of_earlier_runs() -> None:
    """Blocks of 4 MiB, each hashed by itself: a wrong byte is named, and what lies elsewhere is read."""
    block, size = 4 * 2**20, 4 * 2**20 + 17
    whole = random.Random(1).randbytes(size)
    digests = "".join(hashlib.sha256(whole[at : at + block]).hexdigest()[:32] for at in (0, block))
    file = BlockFile(size, digests, lambda first, length: whole[first : first + length])
    assert file.read() == whole
    changed = bytes([whole[0] ^ 1]) + whole[1:]
    file = BlockFile(size, digests, lambda first, length: changed[first : first + length])
    file.seek(block)
    assert file.read() == whole[block:]
    file.seek(0)
    with pytest.raises(ValueError, match=f"bytes 0 to {block} do not match"):
        file.read(1)
    with pytest.raises(ValueError, match=f"bytes 0 to {block} do not match"):
        BlockFile(size, digests, lambda first, length: b"").read(1)


def test_blocks_side_by_side_are_read_by_one_request() -> None:
    hashes, whole = BlockHashes(), random.Random(2).randbytes(40 * BLOCK)
    hashes.update(memoryview(whole))
    asked: list[tuple[int, int]] = []

    def read_range(first: int, length: int) -> bytes:
        asked.append((first, length))
        return whole[first : first + length]

    file = BlockFile(len(whole), hashes.text(len(whole)), read_range)
    assert file.read(10 * BLOCK) == whole[: 10 * BLOCK]
    assert [length for _, length in asked] == [3 * BLOCK, 3 * BLOCK, 3 * BLOCK, BLOCK]
