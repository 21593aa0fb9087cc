"""Pictures that are already there: folders with captions beside them, and Parquet files with pictures inside."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import InputError
from corgi.sources.cells import text_of
from corgi.sources.rows import Columns, chunked
from corgi.sources.tars import MAX_NOTE_BYTES, PICTURE_ENDINGS, Sample, cells_of, sample_rows
from corgi.sources.url_lists import check_columns, check_names
from corgi.storage.paths import is_local, open_file, sha256_of
from corgi.tables.arrow import pc
from corgi.tables.schema import Reason

IMAGE_COLUMNS = ("jpg", "png", "webp", "image")
_NOTES = ("json", "txt")
_ROWS_AT_ONCE = 256


def pictures_in(folder: str) -> list[str]:
    """Return the pictures of a folder and those below it, as paths inside it, sorted; linked folders are not entered.

    Raises:
        InputError: a name is not UTF-8.

    """
    found = []
    for base, _, names in os.walk(folder):
        for name in names:
            if name.rpartition(".")[2].lower() in PICTURE_ENDINGS and not name.startswith("."):
                path = Path(base, name)
                _check_name(path)
                if _is_file(path):
                    found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def folder_digest(folder: str) -> str:
    """Return the sha256 that names a folder's content: every picture, and what lies beside it, by name and content."""
    digest = hashlib.sha256()
    for name in pictures_in(folder):
        for part in (name, *(_beside(name, ending) for ending in _NOTES)):
            path = Path(folder, part)
            if part == name or _is_file(path):
                digest.update(f"{part}\0{sha256_of(str(path))}\n".encode())
    return digest.hexdigest()


def folder_rows(folder: str, columns: Columns, sha256: str) -> Iterator[pa.RecordBatch]:
    """Yield a row a picture; `x.txt` beside `x.jpg` is its caption, `x.json` its further columns."""
    for names in chunked(iter(pictures_in(folder)), _ROWS_AT_ONCE):
        yield sample_rows([_sample(folder, name, columns, sha256) for name in names], columns, folder)


def image_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """Return the column of a Parquet file that holds encoded pictures, or None for a list of URLs."""
    names = IMAGE_COLUMNS if wanted is None else (wanted,)
    return next(
        (
            name
            for name in names
            if name in schema.names and _holds_bytes(schema.types[schema.names.index(name)])
        ),
        None,
    )


def picture_table_rows(
    place: str, columns: Columns, sha256: str, image_col: str | None
) -> Iterator[pa.RecordBatch]:
    """Yield a row a row of a Parquet file with pictures inside; one without bytes is a row with that reason."""
    with open_file(place) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        column = image_column(file.schema_arrow, image_col)
        if column is None:
            raise InputError(
                f"{place} has no column {image_col!r} of encoded pictures; nothing was started; set plan.image_col"
            )
        if columns.named.get("url") not in file.schema_arrow.names:
            columns = columns.without("url")
        check_columns(place, file.schema_arrow, columns)
        check_names(place, file.schema_arrow.names, [column])
        for group in range(file.num_row_groups):
            row = 0
            parts = file.iter_batches(
                _ROWS_AT_ONCE, [group], columns=[*columns.names, column], use_threads=False
            )
            for batch in parts:
                yield _picture_rows(batch, columns, place, (sha256, group, row, column))
                row += batch.num_rows


def encoded_of(array: pa.Array) -> pa.Array:
    """Return the bytes of an image column, which may be the struct that Hugging Face datasets write."""
    return pc.struct_field(array, "bytes") if pa.types.is_struct(array.type) else array


def _picture_rows(
    batch: pa.RecordBatch, columns: Columns, place: str, at: tuple[str, int, int, str]
) -> pa.RecordBatch:
    sha256, group, first_row, column = at
    pictures = encoded_of(batch.column(column))
    url_column = columns.named.get("url")
    urls = text_of(batch.column(url_column), url_column, place).to_pylist() if url_column else []
    locations: list[str | None] = []
    contents: list[str | None] = []
    for number, picture in enumerate(pictures):
        data = memoryview(picture.as_buffer()) if picture.is_valid else b""
        place_inside = f"{sha256}/{group}:{first_row + number}:{column}"
        locations.append(place_inside if len(data) else None)
        if urls and (urls[number] or "").strip():
            contents.append(None)
        else:
            contents.append(hashlib.sha256(data if len(data) else place_inside.encode()).hexdigest())
    reasons = [None if location else str(Reason.NO_PICTURE) for location in locations]
    return columns.rows(
        {name: batch.column(name) for name in columns.names},
        place,
        location=pa.array(locations, pa.string()),
        content=pa.array(contents, pa.string()),
        reason=pa.array(reasons, pa.string()),
    )


def _sample(folder: str, name: str, columns: Columns, sha256: str) -> Sample:
    note, caption = (_note(Path(folder, _beside(name, ending))) for ending in _NOTES)
    cells = cells_of(note, caption, columns)
    has_url = str(cells.get(columns.named.get("url", "")) or "").strip() != ""
    content = None if has_url else sha256_of(str(Path(folder, name)))
    return Sample(cells, f"{sha256}/{name}", content)


def _note(path: Path) -> bytes | None:
    if not _is_file(path) or path.stat().st_size > MAX_NOTE_BYTES:
        return None
    return path.read_bytes()


def _beside(name: str, ending: str) -> str:
    return f"{name.rpartition('.')[0]}.{ending}"


def _is_file(path: Path) -> bool:
    """Say whether a path is a regular file, itself or behind a link; a pipe or device is none."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{str(path).encode('utf-8', 'replace').decode()}: the name is not UTF-8; nothing was started; rename it"
        ) from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def check_local(folder: str) -> None:
    """Refuse a picture folder that is not on a disk."""
    if not is_local(folder):
        raise InputError(
            f"{folder}: pictures in a folder are read from a disk only; nothing was started; copy it, or make tars of it"
        )
