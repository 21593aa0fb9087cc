"""CSV and TSV lists: records are read by Python's csv module, within bounds, and every cell is text as it is written.

TSV from the web usually has no quoting, and a caption may begin with a quotation mark. CSV has quoting.
"""

import csv
import string
from collections.abc import Iterator

import pyarrow as pa

from corgi.flow import screen
from corgi.settings.data import Quoting
from corgi.settings.errors import InputError
from corgi.sources.rows import BATCH_ROWS, Columns
from corgi.sources.text import lines
from corgi.sources.url_lists import check_names
from corgi.tables.arrow import pc

MAX_CELL_CHARS = 2**20
MAX_CELL_LINES = 1_000
MAX_QUOTED_SHARE = 0.01
"""Share of cells within quotation marks above which a TSV that is read without quoting gets a warning."""
BLOCK_CHARS = 16 * 2**20
"""Largest number of characters of rows that are yielded together, if the limit on rows is not reached first."""
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_QUOTING: dict[str, Quoting] = {"csv": "csv", "tsv": "none"}
_ADVICE = {
    "csv": "set plan.quoting=none where quotation marks are text",
    "none": "set plan.quoting=csv where quotation marks enclose cells",
}


class _BadRow(Exception):
    """A row that cannot be read; its text is the reason."""


def separated_rows(
    uri: str, columns: Columns, format: str, quoting: Quoting | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV or TSV list; every cell is text, so that a caption such as 007 is unchanged.

    Args:
        uri: path or URI of the list.
        columns: the columns to read.
        format: csv or tsv.
        quoting: what quotation marks mean; None: quoting in CSV, text in TSV.

    Raises:
        InputError: a column is missing or occurs twice; a row has a different number of cells than the header; a quotation mark
            is never closed; a cell is longer than MAX_CELL_CHARS or MAX_CELL_LINES; the text is not UTF-8.

    """
    records = _records(uri, _DELIMITERS[format], quoting or _QUOTING[format])
    header = next(records, [])
    _check_quoted_header(uri, header, columns)
    check_names(uri, header, columns.names)
    index_of = {name: header.index(name) for name in columns.names}
    num_cells = num_quoted = 0
    for block in _blocks(records):
        cells = {
            name: pa.array([record[at] for record in block], pa.string()) for name, at in index_of.items()
        }
        num_cells += len(block) * len(cells)
        num_quoted += sum(map(_num_quoted, cells.values()))
        yield columns.rows(cells, uri)
    if quoting is None and _QUOTING[format] == "none" and num_quoted > MAX_QUOTED_SHARE * num_cells:
        screen.current().say(
            f"{uri}: {num_quoted} of {num_cells} cells begin and end with a quotation mark, which is kept as text; "
            "set plan.quoting=csv where it is quoting, plan.quoting=none to silence this line"
        )


def _check_quoted_header(uri: str, header: list[str], columns: Columns) -> None:
    name = next((name for name in columns.names if name not in header and f'"{name}"' in header), None)
    if name is not None:
        raise InputError(
            f"{uri}: the name of column {name!r} is within quotation marks; nothing was started; set plan.quoting=csv"
        )


def _records(uri: str, delimiter: str, quoting: Quoting) -> Iterator[list[str]]:
    """Yield the header and the rows; blank lines are skipped."""
    has_ended = False

    def watched() -> Iterator[str]:
        nonlocal has_ended
        yield from lines(uri)
        has_ended = True

    csv.field_size_limit(MAX_CELL_CHARS)  # a process-wide setting, 128 Ki by default
    rule = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
    reader = csv.reader(watched(), delimiter=delimiter, quoting=rule)
    row, first_line, width = -1, 1, 0
    try:
        for record in reader:
            if (
                has_ended
            ):  # the reader asks for another line after the last one only if a quotation mark is open
                raise _BadRow("a quotation mark opens a cell and is never closed")
            if not _is_blank(record, quoting):
                width = width or len(record)
                _check_record(record, width, reader.line_num - first_line)
                yield record
                row += 1
            first_line = reader.line_num + 1
    except (csv.Error, _BadRow) as error:
        what = f"a cell is longer than {MAX_CELL_CHARS} characters" if isinstance(error, csv.Error) else error
        name = "the header" if row < 0 else f"row {row}"
        raise InputError(
            f"{uri} cannot be read as a list: {name} (line {first_line}): {what}; nothing was started; "
            f"correct the row, or {_ADVICE[quoting]}"
        ) from error


def _is_blank(record: list[str], quoting: Quoting) -> bool:
    """Return whether a record is from a blank line; without quoting, a line of only white space, including tabs, is blank."""
    return not record or (quoting == "none" and not "".join(record).strip(string.whitespace))


def _check_record(record: list[str], width: int, num_line_ends: int) -> None:
    if len(record) != width:
        raise _BadRow(f"{len(record)} cells where the header has {width}")
    if num_line_ends >= MAX_CELL_LINES and max(map(_num_lines, record)) > MAX_CELL_LINES:
        raise _BadRow(f"a cell is longer than {MAX_CELL_LINES} lines")


def _num_lines(cell: str) -> int:
    return 1 + cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def _blocks(records: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    """Yield records in blocks of bounded length and number of characters."""
    block: list[list[str]] = []
    num_chars = 0
    for record in records:
        block.append(record)
        num_chars += sum(map(len, record))
        if len(block) == BATCH_ROWS or num_chars > BLOCK_CHARS:
            yield block
            block, num_chars = [], 0
    if block:
        yield block


def _num_quoted(cells: pa.Array) -> int:
    """Return how many cells begin and end with a quotation mark."""
    return pc.sum(pc.match_substring_regex(cells, r'(?s)^".*"$')).as_py() or 0
