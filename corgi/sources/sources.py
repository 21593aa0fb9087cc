"""Sources: the files that the inputs name, the format of each, the digest that identifies its rows, and its rows."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.folders import (
    check_local,
    contents_of,
    folder_digest,
    folder_rows,
    image_column,
    picture_table_rows,
)
from corgi.sources.metadata import naming_column
from corgi.sources.revision import is_looked_through, revision, sha256_of_text
from corgi.sources.rows import Columns
from corgi.sources.samples import Tally, is_picture, is_stranger
from corgi.sources.separated import separated_rows
from corgi.sources.tars import tar_rows
from corgi.sources.url_lists import json_rows, parquet_rows, text_rows
from corgi.storage.paths import (
    COMPRESSIONS,
    ending,
    expand,
    first_line,
    inside,
    is_folder,
    is_local,
    open_file,
    sha256_of,
    size_of,
)

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".tar": "webdataset",
}
_LISTS = FORMATS.keys() - {".txt", ".tar"}
HOLD_PICTURES = frozenset({"webdataset", "pictures", "files"})
"""Formats that contain the pictures themselves."""
METADATA, IMAGE_VECTORS, TEXT_VECTORS = "metadata", "img_emb", "text_emb"
"""Folders of clip-retrieval's output."""
_PACKED = 4  # approximate bytes of rows per byte of Parquet or of compressed text


@dataclass(frozen=True)
class Source:
    """One file or picture folder: its path, its format, and the sha256 that identifies it in every ledger."""

    path: str
    sha256: str
    format: str
    revision: str = ""
    """Version since which the list is read differently than before; empty: all versions read it the same way."""

    @property
    def meaning(self) -> str:
        """Return what a plan depends on: the content and how it is read, but not the name."""
        return f"{self.sha256} {self.format} {self.revision}".rstrip()


def sources(settings: PlanSettings) -> list[Source]:
    """Return the sources, sorted by digest so that neither names nor the order of arguments matter.

    Raises:
        InputError: no input is named, or a file is missing, cannot be read or is of an unknown format.

    """
    if not settings.input:
        raise InputError(
            "plan.input names no list; nothing was started; set plan.input=PATH to a list of URLs, tars or a folder of pictures"
        )
    found: dict[str, Source] = {}
    for pattern in settings.input:
        try:
            uris = expand(pattern)
            if not uris:
                raise InputError(
                    f"plan.input: {pattern} does not exist; nothing was started; name an existing list"
                )
            for path, kind in itertools.chain.from_iterable(sources_in(uri, settings) for uri in uris):
                source = _source(path, kind, settings)
                found.setdefault(source.sha256, source)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"plan.input: {pattern} cannot be read ({first_line(error)}); nothing was started; name a readable list"
            ) from error
    return [found[name] for name in sorted(found)]


def _source(path: str, kind: str, settings: PlanSettings) -> Source:
    if kind == "files":
        sha256 = folder_digest(path, Columns.of(settings))
    else:
        sha256 = sha256_of_text(path, kind) if is_looked_through(kind, settings) else sha256_of(path)
    return Source(path, sha256, kind, revision(path, kind, sha256, settings))


def batches(source: Source, settings: PlanSettings, tally: Tally | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a source's rows as ROWS, in their order; count in `tally` its members that are not rows.

    Raises:
        InputError: its content does not fit its format, or it lacks a column.

    """
    columns = Columns.of(settings)
    try:
        yield from _rows(source, columns, settings, Tally() if tally is None else tally)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(
            f"{source.path} cannot be read as a list: {first_line(error)}; nothing was started; correct the file"
        ) from error


def num_bytes_of_rows(source: Source) -> int:
    """Return the approximate number of bytes of a source's rows, without its pictures."""
    if source.format in HOLD_PICTURES:
        return 0
    is_packed = source.format == "parquet" or source.path.endswith(tuple(COMPRESSIONS))
    return size_of(source.path) * (_PACKED if is_packed else 1)


def _rows(source: Source, columns: Columns, settings: PlanSettings, tally: Tally) -> Iterator[pa.RecordBatch]:
    if source.format == "parquet":
        return parquet_rows(source.path, columns)
    if source.format == "pictures":
        return picture_table_rows(source.path, columns, source.sha256, settings.image_col)
    if source.format == "webdataset":
        return tar_rows(source.path, columns, source.sha256, tally)
    if source.format == "files":
        return folder_rows(source.path, columns, source.sha256, tally)
    if source.format == "jsonl":
        return json_rows(source.path, columns)
    if source.format == "txt":
        return text_rows(source.path, columns)
    return separated_rows(source.path, columns, source.format, settings.quoting)


def formats(settings: PlanSettings) -> set[str]:
    """Return the formats of the existing sources; nothing is hashed.

    Raises:
        InputError: a file is of an unknown format.

    """
    uris = itertools.chain.from_iterable(map(expand, settings.input))
    return {kind for uri in uris for _, kind in sources_in(uri, settings)}


def sources_in(uri: str, settings: PlanSettings) -> Iterator[tuple[str, str]]:
    """Yield path and format of the sources at one path: a file is one source; a folder has its tars, else its lists, else its pictures.

    Raises:
        InputError: a file is of an unknown format, or a folder contains no source.

    """
    if not is_folder(uri):
        yield uri, _format(uri, settings)
        return
    files = [] if settings.input_format == "files" else inside(vectors_list(uri) or uri)
    tars = [name for name in files if ending(name) == ".tar"]
    chosen = tars or _lists(files, settings, without_metadata=is_local(uri))
    if chosen:
        yield from ((name, _format(name, settings)) for name in chosen)
        return
    if is_local(uri) and contents_of(uri, Columns.of(settings)).pictures:
        yield uri, "files"
        return
    chosen = _lists(files, settings)
    if not chosen:
        check_local(uri)
        raise InputError(
            f"plan.input: {uri} cannot be read: the folder has no list, tar or picture; nothing was started; "
            "name another folder, or text lists by a glob such as *.txt"
        )
    yield from ((name, _format(name, settings)) for name in chosen)


def _lists(files: list[str], settings: PlanSettings, without_metadata: bool = False) -> list[str]:
    """Return the lists among a folder's files, none if it also has pictures; with `without_metadata`, metadata of pictures is not a list."""
    if any(is_picture(name) and not is_stranger(name) for name in files):
        return []
    columns = Columns.of(settings)
    lists = [name for name in files if ending(name) in _LISTS and not name.endswith("_stats.json")]
    return [name for name in lists if not (without_metadata and naming_column(name, columns))]


def vectors_list(uri: str) -> str | None:
    """Return the folder of lists that belong to clip-retrieval's vectors, if a folder contains such vectors."""
    folder = f"{uri.rstrip('/')}/{METADATA}"
    return folder if is_folder(folder) and is_folder(f"{uri.rstrip('/')}/{IMAGE_VECTORS}") else None


def _format(uri: str, settings: PlanSettings) -> str:
    wanted = settings.input_format
    kind = FORMATS.get(ending(uri)) if wanted == "auto" else wanted
    if kind is None or kind == "files" or (kind == "webdataset" and uri.endswith((".gz", ".zst"))):
        raise InputError(
            f"{uri}: by its ending it is not a list that Corgi reads; nothing was started; "
            "use .parquet, .csv, .tsv, .jsonl or .txt (text also .gz or .zst), .tar, or a folder of pictures"
        )
    if kind == "parquet" and _holds_pictures(uri, settings):
        return "pictures"
    return kind


def _holds_pictures(uri: str, settings: PlanSettings) -> bool:
    try:
        with open_file(uri) as handle, pq.ParquetFile(handle) as file:
            return settings.image_col is not None or image_column(file.schema_arrow, None) is not None
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{uri} cannot be read as a list: {first_line(error)}; nothing was started; correct the file"
        ) from error
