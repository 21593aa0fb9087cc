"""URL lists as they lie there: Parquet, CSV, TSV, JSON lines and plain text, streamed, never loaded whole."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from corgi.settings.errors import InputError
from corgi.sources.cells import parsed
from corgi.sources.rows import BATCH_ROWS, Columns, chunked
from corgi.storage.paths import CHUNK_BYTES, first_line, open_file, open_stream

MAX_LINE_BYTES = 16 * 2**20
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def parquet_rows(place: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet list's rows."""
    with open_file(place) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        check_columns(place, file.schema_arrow, columns)
        for batch in file.iter_batches(BATCH_ROWS, columns=columns.names, use_threads=False):
            yield columns.rows({name: batch.column(name) for name in columns.names}, place)


def separated_rows(place: str, columns: Columns, format: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV or TSV list; every cell is text, so that a caption such as 007 stays as it is."""
    parse = pa_csv.ParseOptions(delimiter=_DELIMITERS[format], newlines_in_values=True)
    read = pa_csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES)
    with open_stream(place) as stream, pa_csv.open_csv(stream, read, parse) as header:
        check_columns(place, header.schema, columns)
    as_text = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(columns.names, pa.string()), include_columns=columns.names
    )
    with open_stream(place) as stream, pa_csv.open_csv(stream, read, parse, as_text) as reader:
        for batch in reader:
            if batch.num_rows:
                yield columns.rows({name: batch.column(name) for name in columns.names}, place)


def json_rows(place: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a list of JSON objects, one a line; numbers stay as they are written."""
    seen: dict[str, None] = {}
    for block in chunked(_objects(place)):
        for row in block:
            seen |= dict.fromkeys(row)
        missing = [name for name in columns.names if name not in seen]
        if missing:
            raise missing_column(place, missing[0], list(seen))
        yield columns.rows(columns.read(block, place), place)


def text_rows(place: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a text that holds one URL a line and nothing else; blank lines are no rows."""
    for block in chunked(text_lines(place)):
        urls = pa.array(block, pa.binary())
        only = Columns({"url": "url"}, (), None)
        yield only.rows({"url": urls}, place)


def check_columns(place: str, schema: pa.Schema, columns: Columns) -> None:
    """Refuse a list that lacks a column, or whose column is of a foreign type."""
    for column in columns.names:
        if column not in schema.names:
            raise missing_column(place, column, schema.names)
        if isinstance(schema.field(column).type, pa.BaseExtensionType):
            raise InputError(
                f"{place}: column {column!r} is of an extension type; nothing was started; store it as plain text"
            )


def missing_column(place: str, column: str, names: list[str]) -> InputError:
    """Return the line for a column that is not there."""
    return InputError(
        f"{place} has no column {column!r} (it has {', '.join(names)}); nothing was started; "
        "set plan.url_col, plan.caption_col, plan.caption_kind_col or plan.group_col (null: the list has none), "
        "plan.uid_col, plan.verify_hash or plan.save_additional_columns"
    )


def _objects(place: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text_lines(place)):
        try:
            row = parsed(line)
        except (ValueError, RecursionError) as error:
            raise _bad_line(place, number, first_line(error)) from error
        if not isinstance(row, dict):
            raise _bad_line(place, number, f"{type(row).__name__} instead of an object")
        yield row


def _bad_line(place: str, number: int, what: str) -> InputError:
    return InputError(
        f"{place} cannot be read as a list: row {number}: {what}; nothing was started; write one JSON object a line"
    )


def text_lines(place: str) -> Iterator[bytes]:
    """Yield the lines of a text that are not blank, without their ends."""
    rest, is_start = b"", True
    with open_stream(place) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if is_start:
                chunk, is_start = chunk.removeprefix(_BOM), False
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise InputError(
                    f"{place} cannot be read as a list: a line is longer than {MAX_LINE_BYTES >> 20} MiB; nothing was started; "
                    "write one row a line"
                )
            yield from filter(None, map(bytes.strip, lines))
    if rest.strip():
        yield rest.strip()
