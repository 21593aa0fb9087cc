"""Images in inputs: folders with captions next to the images, and Parquet files that store images."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.errors import InputError
from corgi.sources.cells import text_of
from corgi.sources.metadata import METADATA_FILES, columns_in, named_pictures, naming_column
from corgi.sources.rows import Columns, chunked
from corgi.sources.samples import (
    MAX_NOTE_BYTES,
    NOTE_ENDINGS,
    Notes,
    Sample,
    Tally,
    cells_of,
    checked,
    has_url,
    is_note,
    is_picture,
    is_stranger,
    laid_over,
    sample_rows,
    without_identity,
)
from corgi.sources.url_lists import check_columns, check_names
from corgi.storage.file_memory import recalled, size_in
from corgi.storage.paths import facts_of, is_local, open_file, sha256_of
from corgi.tables.arrow import pc
from corgi.tables.schema import Reason

IMAGE_COLUMNS = ("jpg", "png", "webp", "image")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Contents:
    """The contents of a folder of pictures, as paths inside it.

    `pictures` is sorted; `notes` are the captions and JSON files, and `num_notes` their number, where two with one name count twice;
    `metadata` are Hugging Face's files that name pictures; `num_hidden` counts the pictures whose names begin with a dot and
    those left by macOS; `num_links` counts linked folders, and names of pictures and notes that are not regular files.
    """

    pictures: list[str]
    notes: Notes[str]
    num_notes: int
    metadata: list[str]
    num_hidden: int
    num_links: int

    def beside(self, picture: str) -> list[str]:
        """Return the notes of an image."""
        found = (self.notes.beside(picture, ending) for ending in NOTE_ENDINGS)
        return [note for note in found if note is not None]


def contents_of(folder: str, columns: Columns) -> Contents:
    """Return the contents of a folder and its subfolders; linked folders are not entered.

    Raises:
        InputError: a name is not UTF-8, or a metadata file cannot be read.

    """
    links: list[str] = []
    files = sorted(_files(folder, links))
    hidden = [path for path in files if is_stranger(path) or path.rpartition("/")[2].startswith(".")]
    shown = sorted(set(files).difference(hidden))
    notes: Notes[str] = Notes()
    for path in shown:
        notes.put(path, path)
    return Contents(
        pictures=[path for path in shown if is_picture(path)],
        notes=notes,
        num_notes=sum(map(is_note, shown)),
        metadata=[path for path in shown if naming_column(str(Path(folder, path)), columns)],
        num_hidden=sum(map(is_picture, hidden)),
        num_links=len(links),
    )


def folder_digest(folder: str, columns: Columns) -> str:
    """Return the sha256 of a folder's content: every image and its notes, by name and content.

    No file is read if names, sizes and times are the same as when an earlier command of the run read the folder.
    """
    contents = contents_of(folder, columns)
    key = f"folder_digest {folder}"
    return recalled(key, facts_of_folder(folder, contents), lambda: _digest_of(folder, contents))


def _digest_of(folder: str, contents: Contents) -> str:
    digest = hashlib.sha256()
    for part in _parts(contents):
        digest.update(f"{part}\0{sha256_of(str(Path(folder, part)))}\n".encode())
    return digest.hexdigest()


def facts_of_folder(folder: str, contents: Contents) -> tuple[int, ...]:
    """Return the number of a folder's files, a digest of their names and facts, and their total bytes, in the form of a file's facts."""
    digest, number, size = hashlib.sha256(), 0, 0
    for part in _parts(contents):
        facts = facts_of(str(Path(folder, part)))
        digest.update(f"{part}\0{facts}\n".encode())
        number, size = number + 1, size + size_in(facts)
    return number, int(digest.hexdigest()[:16], 16), size


def _parts(contents: Contents) -> Iterator[str]:
    """Yield the files that a folder's content consists of."""
    for name in contents.pictures:
        yield from (name, *contents.beside(name))
    yield from contents.metadata


def folder_rows(folder: str, columns: Columns, sha256: str, tally: Tally) -> Iterator[pa.RecordBatch]:
    """Yield one row per picture, then one per picture that a metadata file names but that does not exist.

    `x.txt` next to `x.jpg` is its caption, `x.json` has its other columns.
    """
    contents = contents_of(folder, columns)
    known = [name for file in contents.metadata for name in columns_in(str(Path(folder, file)))]
    samples = _samples(folder, contents, columns, sha256, tally)
    for block in chunked(checked(samples, columns, folder, known), _ROWS_AT_ONCE):
        yield sample_rows(block, columns, folder)


def image_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """Return the column of a Parquet file with encoded pictures, or None for a list of URLs."""
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
    uri: str, columns: Columns, sha256: str, image_col: str | None
) -> Iterator[pa.RecordBatch]:
    """Yield one row per row of a Parquet file that stores images; a row without bytes gets the reason `no_picture`."""
    with open_file(uri) as handle, pq.ParquetFile(handle, pre_buffer=False) as file:
        column = image_column(file.schema_arrow, image_col)
        if column is None:
            raise InputError(
                f"{uri} has no column {image_col!r} of encoded pictures; nothing was started; set plan.image_col"
            )
        if columns.named.get("url") not in file.schema_arrow.names:
            columns = columns.without("url")
        check_columns(uri, file.schema_arrow, columns)
        check_names(uri, file.schema_arrow.names, [column])
        for group in range(file.num_row_groups):
            row = 0
            parts = file.iter_batches(
                _ROWS_AT_ONCE, [group], columns=[*columns.names, column], use_threads=False
            )
            for batch in parts:
                yield _picture_rows(batch, columns, uri, (sha256, group, row, column))
                row += batch.num_rows


def encoded_of(array: pa.Array) -> pa.Array:
    """Return the bytes of an image column, which may be the struct that Hugging Face datasets write."""
    return pc.struct_field(array, "bytes") if pa.types.is_struct(array.type) else array


def _picture_rows(
    batch: pa.RecordBatch, columns: Columns, uri: str, at: tuple[str, int, int, str]
) -> pa.RecordBatch:
    sha256, group, first_row, column = at
    pictures = encoded_of(batch.column(column))
    url_column = columns.named.get("url")
    urls = text_of(batch.column(url_column), url_column, uri).to_pylist() if url_column else []
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
        uri,
        location=pa.array(locations, pa.string()),
        content=pa.array(contents, pa.string()),
        reason=pa.array(reasons, pa.string()),
    )


def _samples(
    folder: str, contents: Contents, columns: Columns, sha256: str, tally: Tally
) -> Iterator[Sample]:
    named = named_pictures(folder, contents.metadata, columns)
    shared = contents.notes.shared(contents.pictures, "json")
    tally["strangers"] += contents.num_hidden
    tally["links"] += contents.num_links
    tally["notes_without_picture"] += contents.num_notes - len(contents.notes.taken_by(contents.pictures))
    for picture in contents.pictures:
        note, caption = (contents.notes.beside(picture, ending) for ending in NOTE_ENDINGS)
        cells = cells_of(_note(folder, note, tally), _note(folder, caption, tally), columns, tally)
        cells = without_identity(cells, columns) if note in shared else cells
        tally["pictures_unnamed"] += bool(contents.metadata) and picture not in named
        cells = laid_over(named.pop(picture, {}), cells)
        content = None if has_url(cells, columns) else sha256_of(str(Path(folder, picture)))
        yield Sample(cells, f"{sha256}/{picture}", content)
    for name in sorted(named):
        missing = hashlib.sha256(f"{sha256}/{name}".encode("utf-8", "replace")).hexdigest()
        yield Sample(named[name], None, None if has_url(named[name], columns) else missing)


def _note(folder: str, name: str | None, tally: Tally) -> bytes | None:
    if name is None:
        return None
    path = Path(folder, name)
    if path.stat().st_size > MAX_NOTE_BYTES:
        tally["notes_unreadable"] += 1
        return None
    return path.read_bytes()


def _files(folder: str, links: list[str]) -> Iterator[str]:
    """Yield the pictures, notes and metadata files, as paths inside the folder; add linked folders and names that are no regular file to `links`."""
    for base, folders, names in os.walk(folder, onerror=_raised):
        links += [name for name in folders if Path(base, name).is_symlink()]
        for name in names:
            if not (is_picture(name) or is_note(name) or name in METADATA_FILES):
                continue
            path = Path(base, name)
            _check_name(path)
            if _is_file(path):
                yield path.relative_to(folder).as_posix()
            else:
                links.append(name)


def _raised(error: OSError) -> None:
    """Raise the error that os.walk would ignore: a folder that cannot be listed may contain pictures."""
    raise error


def _is_file(path: Path) -> bool:
    """Return whether a path is a regular file or a link to one; a pipe or device is not."""
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
    """Raise InputError unless an image folder is on a disk."""
    if not is_local(folder):
        raise InputError(
            f"{folder}: pictures in a folder can only be read from a disk; nothing was started; copy the folder to a disk, or make tars of it"
        )
