"""Files of prompts, read row by row: plain text, CSV, TSV, Parquet. A row that cannot be painted comes with its reason."""

import csv
import string
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.inference.prompts import Fault, fault_of
from corgi.settings.errors import InputError
from corgi.sources.cells import is_text
from corgi.sources.text import lines
from corgi.storage.paths import ending, first_line, open_file
from corgi.tables.schema import Reason

COLUMN = "caption"
"""Default column of the prompts."""
BATCH_ROWS = 4096


class Prompt(NamedTuple):
    """One row of a file: its number from 0, its caption, and why it cannot be painted, if so."""

    row: int
    caption: str
    fault: Fault | None


def read_prompts(uri: str, column: str = COLUMN) -> Iterator[Prompt]:
    """Yield the rows of a file of prompts; blank lines of a text file are skipped.

    Args:
        uri: path or URI whose ending is .txt, .csv, .tsv or .parquet; the first three may be compressed.
        column: the column of prompts in CSV, TSV and Parquet files.

    Raises:
        InputError: the file cannot be read, or has no such column.

    """
    kind = ending(uri)
    if kind not in _READERS:
        raise InputError(
            f"{uri} is not a file of prompts; nothing was painted; name a {', '.join(_READERS)} file with one prompt per row"
        )
    try:
        for row, (caption, fault) in enumerate(_READERS[kind](uri, column)):
            yield Prompt(row, caption or "", fault or fault_of(caption))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{uri} cannot be read as prompts: {first_line(error)}; pictures painted before are kept; name another file or correct it"
        ) from error


Cell = tuple[str | None, Fault | None]
"""The caption of a row, and what is wrong with the row itself. Bytes that are not UTF-8 become lone surrogates."""


def _text_rows(uri: str, column: str) -> Iterator[Cell]:
    for line in lines(uri, "surrogateescape"):
        if caption := line.strip(string.whitespace):
            yield caption, None


def _separated_rows(delimiter: str, uri: str, column: str) -> Iterator[Cell]:
    rows = _records(uri, delimiter)
    header = next(rows, [])
    if isinstance(header, Fault):
        raise InputError(f"{uri}: the header {header.what}; nothing was painted; correct it")
    at = _index(uri, header, column)
    for record in rows:
        if isinstance(record, Fault):
            yield None, record
        elif len(record) != len(header):
            yield None, _bad_row(f"has {len(record)} cells where the header has {len(header)}")
        else:
            yield record[at], None


def _records(uri: str, delimiter: str) -> Iterator[list[str] | Fault]:
    """Yield the records of a CSV or TSV; TSV has no quoting. Blank lines are skipped."""
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines(uri, "surrogateescape"), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):  # the quoted cell has swallowed all following rows
                raise InputError(
                    f"{uri}: line {first} opens a quotation mark that is never closed; pictures painted before are kept; correct the line"
                ) from error
            yield _bad_row(f"cannot be read ({error})")
        else:
            if record:
                yield record


def _parquet_rows(uri: str, column: str) -> Iterator[Cell]:
    with open_file(uri) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        _index(uri, file.schema_arrow.names, column)
        kind = file.schema_arrow.field(column).type
        if not is_text(kind):
            raise InputError(
                f"{uri}: column {column!r} has type {kind}, not text; nothing was painted; name a column of text"
            )
        for batch in file.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
            for value in _as_bytes(batch.column(column)).to_pylist():
                yield None if value is None else value.decode(errors="surrogateescape"), None


def _as_bytes(values: pa.Array) -> pa.Array:
    """Return text as bytes, since a file may declare text that is not valid UTF-8."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.large_binary())


def _index(uri: str, names: list[str], column: str) -> int:
    if names.count(column) != 1:
        raise InputError(
            f"{uri} has {names.count(column) or 'no'} column{'s' * (names.count(column) > 1)} {column!r} (it has {', '.join(names) or 'none'}); "
            "nothing was painted; name the column of the prompts with --column"
        )
    return names.index(column)


def _bad_row(what: str) -> Fault:
    return Fault(Reason.NO_CAPTION, what, "correct the row")


_READERS: Mapping[str, Callable[[str, str], Iterator[Cell]]] = {
    ".txt": _text_rows,
    ".csv": partial(_separated_rows, ","),
    ".tsv": partial(_separated_rows, "\t"),
    ".parquet": _parquet_rows,
}
"""The reader of a file, by the ending of its name."""
