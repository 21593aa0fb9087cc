"""Hugging Face's image folders: a file named metadata, whose rows name the images in its folder and subfolders."""

import csv
import io
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import InputError
from corgi.sources.captions import captions_of
from corgi.sources.cells import text_of
from corgi.sources.rows import Columns
from corgi.sources.url_lists import objects
from corgi.storage.paths import first_line, open_file, open_stream

METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_NAMING = ("file_name", "image")
_UNREADABLE = (OSError, ValueError, csv.Error, pa.ArrowException)
Named = dict[str, dict[str, Any]]
"""Cells by the path of an image inside a folder."""


def naming_column(uri: str, columns: Columns) -> str | None:
    """Return the column of a metadata file that names pictures, or None if the file is an ordinary list of URLs.

    Raises:
        InputError: the file cannot be read.

    """
    if posixpath.basename(uri) not in METADATA_FILES:
        return None
    names = columns_in(uri)
    return next((name for name in _NAMING if name in names and name != columns.named.get("url")), None)


def columns_in(uri: str) -> list[str]:
    """Return the names of a metadata file's columns; a naming column that contains pictures instead of text is left out.

    Raises:
        InputError: the file cannot be read.

    """
    try:
        if uri.endswith(".csv"):
            with _text(uri) as text:
                return list(csv.DictReader(text).fieldnames or [])
        if uri.endswith(".jsonl"):
            return list(next(objects(uri), {}))
        with open_file(uri) as handle, pq.ParquetFile(handle) as file:
            schema = file.schema_arrow
            return [name for name in schema.names if name not in _NAMING or _is_text(schema.field(name).type)]
    except _UNREADABLE as error:
        raise _unreadable(uri, error) from error


def named_pictures(folder: str, files: Iterable[str], columns: Columns) -> Named:
    """Return what the metadata files of a folder, given as paths inside it, contain about each image they name.

    The file in the folder closest to an image is used; several of its rows for one image give it several captions.

    Raises:
        InputError: a file cannot be read.

    """
    found: Named = {}
    for file in sorted(files, key=lambda path: (-path.count("/"), path)):
        nearer = frozenset(found)
        for name, cells in _rows(str(Path(folder, file)), columns):
            picture = posixpath.normpath(posixpath.join(posixpath.dirname(file), name))
            if picture not in nearer:
                found[picture] = _joined(found[picture], cells, columns) if picture in found else cells
    return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _rows(uri: str, columns: Columns) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the picture that each row names, and the row's cells in the named columns."""
    naming = naming_column(uri, columns)
    if naming is None:
        return
    read = _csv(uri) if uri.endswith(".csv") else objects(uri)
    try:
        rows = _parquet(uri, naming, columns) if uri.endswith(".parquet") else read
        for number, row in enumerate(rows):
            name = row.get(naming)
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"row {number} names no picture in column {naming!r}")
            yield name, {column: row[column] for column in columns.names if column in row}
    except _UNREADABLE as error:
        raise _unreadable(uri, error) from error


def _text(uri: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_stream(uri), "utf-8-sig", newline="")


def _csv(uri: str) -> Iterator[dict[str, object]]:
    with _text(uri) as text:
        for number, row in enumerate(csv.DictReader(text, strict=True)):
            if None in row or None in row.values():
                raise csv.Error(f"row {number} has more or fewer cells than the header")
            yield {**row}


def _parquet(uri: str, naming: str, columns: Columns) -> Iterator[dict[str, object]]:
    caption = columns.named.get("caption")
    with open_file(uri) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        names = [name for name in (naming, *columns.names) if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=list(dict.fromkeys(names)), use_threads=False):
            read = {
                name: (captions_of if name == caption else text_of)(batch.column(name), name, uri).to_pylist()
                for name in batch.schema.names
            }
            yield from (dict(zip(read, row, strict=True)) for row in zip(*read.values(), strict=True))


def _joined(
    first: Mapping[str, object], further: Mapping[str, object], columns: Columns
) -> dict[str, object]:
    """Return the cells of a picture's first row with the captions of both."""
    caption = columns.named.get("caption")
    if caption is None:
        return dict(first)
    lists = [cells.get(caption) for cells in (first, further)]
    texts = [one if isinstance(one, list) else [one] for one in lists]
    return {**first, caption: [*texts[0], *texts[1]]}


def _unreadable(uri: str, error: BaseException) -> InputError:
    return InputError(
        f"{uri} cannot be read as an image folder's captions: {first_line(error)}; nothing was started; correct the file"
    )
