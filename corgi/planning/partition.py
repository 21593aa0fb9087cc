"""The plan's one pass over the sources: rows with their identities, partitioned into private files by hash of their URL."""

from collections.abc import Iterator
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
from corgi.tables.arrow import pc
from corgi.tables.schema import REQUEST_URL

SPILL = pa.schema(
    [("digest", pa.binary(16)), ("source", pa.int32()), ("row", pa.int64())]
    + [f for f in ROWS if f.name != "content"]
    + [REQUEST_URL]
)
"""A row of a source: the hash of its canonical URL, its position (`source` counts the sorted sources), its cells."""
MAX_BUCKETS = 256
BUCKET_BYTES = 8 * 2**20
BUFFER_BYTES = 24 * 2**20
"""Rows held in memory before they are written to their buckets."""


def num_buckets(lists: list[Source]) -> int:
    """Return how many files the rows are spread over: one alone is held in memory at a time."""
    expected = sum(num_bytes_of_rows(source) for source in lists)
    return min(MAX_BUCKETS, 1 + expected // BUCKET_BYTES)


def spill(
    lists: list[Source], settings: PlanSettings, folder: Path, buckets: int, tallies: list[Tally]
) -> int:
    """Write every row of the sources to the file of its bucket, equal ranges of the hash; return how many rows there are.

    Members of a source that are not rows are counted in its tally, one per source.
    """
    num_rows = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_file(folder / f"{at:03d}", SPILL)) for at in range(buckets)]
        parts: list[pa.Table] = []
        for at, source in enumerate(lists):
            for part in identified(source, at, settings, tallies[at]):
                num_rows += part.num_rows
                parts.append(part)
                if sum(held.nbytes for held in parts) > BUFFER_BYTES:
                    _append(parts, writers)
                    parts = []
        _append(parts, writers)
    return num_rows


def spilled(folder: Path, bucket: int) -> pa.Table:
    """Return the rows of one bucket."""
    with pa.OSFile(str(folder / f"{bucket:03d}"), "rb") as handle, pa.ipc.open_file(handle) as reader:
        return reader.read_all()


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
