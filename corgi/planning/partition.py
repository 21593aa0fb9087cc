"""The plan's single pass over the sources: rows with their identities, partitioned into private files by hash of their URL."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import UInt64

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.identity import canonical_urls, content_url, ranges_of, request_urls, uid_bytes
from corgi.sources.rows import ROWS
from corgi.sources.samples import Tally
from corgi.sources.sources import Source, batches, num_bytes_of_rows
from corgi.storage.errors import storage_full
from corgi.tables.arrow import pc
from corgi.tables.schema import REQUEST_URL

SPILL = pa.schema(
    [("digest", pa.binary(16)), ("source", pa.int32()), ("row", pa.int64())]
    + [f for f in ROWS if f.name != "content"]
    + [REQUEST_URL]
)
"""A row of a source: the hash of its canonical URL, its index (`source` is that of the source in sorted order), its cells."""
MAX_BUCKETS = 256
BUCKET_BYTES = 8 * 2**20
LARGE_BUCKET_BYTES, MOST_BUCKETS = 2**28, 2_048
"""For more than 64 GiB of rows there are more buckets, up to the number of files that a worker can keep open."""
TABLE_BYTES = 2**28
BUFFER_BYTES = 24 * 2**20
"""Bytes of rows kept in memory before they are written to their buckets."""


def num_buckets(lists: Sequence[Source]) -> int:
    """Return the number of files among which the rows are divided; one file at a time is in memory."""
    expected = num_bytes(lists)
    few = min(MAX_BUCKETS, 1 + expected // BUCKET_BYTES)
    return min(MOST_BUCKETS, max(few, expected // LARGE_BUCKET_BYTES))


def num_bytes(lists: Sequence[Source]) -> int:
    """Return the approximate number of bytes of the rows of some sources."""
    return sum(num_bytes_of_rows(source) for source in lists)


def parts_of(lists: Sequence[Source], most: int) -> list[list[tuple[int, Source]]]:
    """Return the sources with their indices, divided into at most `most` parts of about equal bytes."""
    number = max(1, min(most, len(lists)))
    parts: list[list[tuple[int, Source]]] = [[] for _ in range(number)]
    sizes = [0] * number
    order = sorted(enumerate(lists), key=lambda item: (-num_bytes_of_rows(item[1]), item[0]))
    for at, source in order:
        smallest = sizes.index(min(sizes))
        parts[smallest].append((at, source))
        sizes[smallest] += num_bytes_of_rows(source) + 1
    return [sorted(part, key=lambda item: item[0]) for part in parts]


def spill(
    part: Sequence[tuple[int, Source]], settings: PlanSettings, folder: Path, buckets: int
) -> tuple[int, dict[int, Tally]]:
    """Write every row of some sources to the file of its bucket; buckets are equal ranges of the hash.

    Args:
        part: the sources, each with its index among all sources.
        settings: how they are read.
        folder: the folder of this part's files, which is created.
        buckets: the number of buckets.

    Returns:
        The number of rows, and for each source, by index, how many members are not rows.

    Raises:
        StorageError: the disk is full.

    """
    num_rows, tallies = 0, {at: Tally() for at, _ in part}
    try:
        folder.mkdir(parents=True)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(pa.ipc.new_file(folder / _name(at), SPILL)) for at in range(buckets)
            ]
            held: list[pa.Table] = []
            for at, source in part:
                for rows in identified(source, at, settings, tallies[at]):
                    num_rows += rows.num_rows
                    held.append(rows)
                    if sum(one.nbytes for one in held) > BUFFER_BYTES:
                        _append(held, writers)
                        held = []
            _append(held, writers)
    except OSError as error:
        storage_full(error, folder)
    return num_rows, tallies


def spilled(folder: Path, bucket: int) -> Iterator[pa.Table]:
    """Yield the rows of one bucket, of all parts, in tables of at most about 256 MiB, so that no column exceeds Arrow's 2 GiB."""
    held: list[pa.RecordBatch] = []
    size = 0
    for part in sorted(folder.iterdir()):
        with pa.OSFile(str(part / _name(bucket)), "rb") as handle, pa.ipc.open_file(handle) as reader:
            for at in range(reader.num_record_batches):
                held.append(reader.get_batch(at))
                size += held[-1].nbytes
                if size > TABLE_BYTES:
                    yield pa.Table.from_batches(held, SPILL)
                    held, size = [], 0
    yield pa.Table.from_batches(held, SPILL)


def _name(bucket: int) -> str:
    return f"{bucket:04d}"


def identified(
    source: Source, at: int, settings: PlanSettings, tally: Tally | None = None
) -> Iterator[pa.Table]:
    """Yield a source's rows with canonical URLs and their hashes; an image without a URL is named by its content."""
    first_row = 0
    for batch in batches(source, settings, tally):
        named = _named(batch)
        urls = canonical_urls(named)
        rows = pa.array(np.arange(first_row, first_row + batch.num_rows))
        _check_uids(batch.column("uid"), source, first_row)
        columns = {name: batch.column(name) for name in batch.schema.names} | {
            "digest": pa.array(uid_bytes(urls.cast(pa.binary()).to_pylist()), pa.binary(16)),
            "source": pa.array(np.full(batch.num_rows, at, np.int32)),
            "row": rows,
            "url": urls,
            "request_url": request_urls(named, urls),
        }
        yield pa.table([columns[name] for name in SPILL.names], schema=SPILL)
        first_row += batch.num_rows


def digests_of(rows: pa.Table) -> np.ndarray:
    """Return the hashes of rows, S16."""
    column = rows["digest"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.binary(16))
    raw = np.frombuffer(column.buffers()[1] or b"", np.dtype("S16"), count=len(column) + column.offset)
    return raw[column.offset :]


def leading_of(digests: np.ndarray) -> UInt64[np.ndarray, "n"]:
    """Return the leading 64 bits of each hash."""
    return np.ascontiguousarray(digests).view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def _named(batch: pa.RecordBatch) -> pa.Array:
    urls, contents = batch.column("url"), batch.column("content")
    if contents.null_count == len(contents):
        return urls
    named = pc.binary_join_element_wise(content_url(""), contents, "")
    return pc.coalesce(named, urls)


def _check_uids(uids: pa.Array, source: Source, first_row: int) -> None:
    if uids.null_count == len(uids):
        return
    bad = pc.fill_null(pc.invert(pc.match_substring_regex(uids, "^[0-9a-f]{32}$")), False)
    if pc.any(bad).as_py():
        row = pc.index(bad, True).as_py()
        raise InputError(
            f"{source.path}: row {first_row + row}: uid {uids[row].as_py()[:80]!r} is not 32 lower hex digits; "
            "nothing was started; correct plan.uid_col"
        )


def _append(parts: list[pa.Table], writers: list[pa.RecordBatchFileWriter]) -> None:
    if not parts:
        return
    rows = pa.concat_tables(parts)
    if len(writers) == 1:
        writers[0].write_table(rows)
        return
    buckets = ranges_of(leading_of(digests_of(rows)), len(writers))
    order = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[order], np.arange(len(writers) + 1))
    for writer, start, stop in zip(writers, edges[:-1], edges[1:], strict=True):
        if stop > start:
            writer.write_table(rows.take(pa.array(order[start:stop])))
