"""URL lists in Parquet, JSON lines and plain text, streamed, never loaded completely."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import InputError
from corgi.sources.cells import parsed
from corgi.sources.rows import BATCH_ROWS, Columns, chunked
from corgi.sources.text import filled_lines
from corgi.storage.paths import first_line, open_file


def parquet_rows(uri: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet list's rows."""
    with open_file(uri) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        check_columns(uri, file.schema_arrow, columns)
        for batch in file.iter_batches(BATCH_ROWS, columns=columns.names, use_threads=False):
            yield columns.rows({name: batch.column(name) for name in columns.names}, uri)


def json_rows(uri: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a list of JSON objects, one per line; numbers stay as they are written."""
    seen: dict[str, None] = {}
    for block in chunked(objects(uri)):
        for row in block:
            seen |= dict.fromkeys(row)
        missing = [name for name in columns.names if name not in seen]
        if missing:
            raise missing_column(uri, missing[0], list(seen))
        yield columns.rows(columns.read(block, uri), uri)


def text_rows(uri: str, columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a text file with one URL per line; the text after a tab is its caption.

    Raises:
        InputError: a line has more than one tab, or the text is not UTF-8.

    """
    names = ["url", "caption"] if "caption" in columns.named else ["url"]
    only = Columns({name: name for name in names}, (), None)
    cells = (_cells_of_line(line, row, uri) for row, line in enumerate(filled_lines(uri)))
    for block in chunked(cells):
        yield only.rows({name: pa.array([row[name] for row in block], pa.string()) for name in names}, uri)


def check_columns(uri: str, schema: pa.Schema, columns: Columns) -> None:
    """Raise InputError if a list lacks a column, has it twice, or if the column is of a wrong type."""
    check_names(uri, schema.names, columns.names)
    for column in columns.names:
        if isinstance(schema.field(column).type, pa.BaseExtensionType):
            raise InputError(
                f"{uri}: column {column!r} is of an extension type; nothing was started; store it as plain text"
            )


def check_names(uri: str, names: list[str], wanted: Sequence[str]) -> None:
    """Raise InputError if a wanted column is missing in the names of a list, or occurs more than once."""
    for column in wanted:
        if column not in names:
            raise missing_column(uri, column, names)
        if names.count(column) > 1:
            raise InputError(
                f"{uri} has {names.count(column)} columns {column!r}; nothing was started; rename all but one"
            )


def missing_column(uri: str, column: str, names: list[str]) -> InputError:
    """Return the error for a missing column."""
    return InputError(
        f"{uri} has no column {column!r} (it has {', '.join(names) or 'none'}); nothing was started; "
        "set plan.url_col, plan.caption_col, plan.caption_kind_col or plan.group_col (null: the list has none), "
        "plan.uid_col, plan.verify_hash or plan.save_additional_columns"
    )


def _cells_of_line(line: str, row: int, uri: str) -> dict[str, str | None]:
    if line.count("\t") > 1:
        raise InputError(
            f"{uri} cannot be read as a list: row {row}: more than a URL, a tab and a caption; nothing was started; "
            "name it .tsv and give it a header"
        )
    url, _, caption = line.partition("\t")
    return {"url": url.rstrip(), "caption": caption or None}


def objects(uri: str) -> Iterator[dict[str, object]]:
    """Yield the objects of a text file with one JSON object per line.

    Raises:
        InputError: a line is not a JSON object.

    """
    for number, line in enumerate(filled_lines(uri)):
        try:
            row = parsed(line)
        except (ValueError, RecursionError) as error:
            raise _bad_line(uri, number, first_line(error)) from error
        if not isinstance(row, dict):
            raise _bad_line(uri, number, f"{type(row).__name__} instead of an object")
        yield row


def _bad_line(uri: str, number: int, what: str) -> InputError:
    return InputError(
        f"{uri} cannot be read as a list: row {number}: {what}; nothing was started; write one JSON object per line"
    )
