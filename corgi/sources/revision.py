"""Which sources version 0.2 reads differently than 0.1: their plans are made again, those of all others stay valid."""

import collections
import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.data import PlanSettings
from corgi.sources.cells import parsed
from corgi.sources.folders import Contents, contents_of, facts_of_folder
from corgi.sources.rows import Columns
from corgi.sources.samples import MAX_NOTE_BYTES, first_stem, is_picture, is_stranger, last_ending
from corgi.sources.tars import Member, Tar, grouped, open_tar
from corgi.storage.file_memory import recalled, remembered
from corgi.storage.paths import CHUNK_BYTES, COMPRESSIONS, facts_of, open_file, open_stream, sha256_of

REVISION = "0.2"
_PICTURES_OF_0_1 = frozenset({"jpg", "jpeg", "png", "webp", "gif"})
_OVERLAP_BYTES = len(b"Infinity") - 1


def revision(uri: str, format: str, sha256: str, settings: PlanSettings) -> str:
    """Return the version of reading a list for the plan's key; empty if version 0.1 read the same rows.

    Args:
        uri: path or URI of the list.
        format: its format.
        sha256: that of its bytes.
        settings: which of its columns are read, and how.

    """
    named = Columns.of(settings).named
    if format in ("parquet", "pictures"):
        is_other = _has_float_cells(uri, settings)
    elif format == "webdataset":
        is_other = _is_other_tar(uri, named.get("caption") or "", facts_of(uri))
    elif format == "files":
        is_other = _is_other_folder(uri, settings)
    else:
        is_looked_at = is_looked_through(format, settings)
        is_other = is_looked_at and _read_once(uri, format, facts_of(uri))[1]
    return REVISION if is_other else ""


def _has_float_cells(uri: str, settings: PlanSettings) -> bool:
    """Return whether there may be NaN where version 0.1 read the word `nan`; in additional columns the word did no harm."""
    with open_file(uri) as handle, pq.ParquetFile(handle) as file:
        schema = file.schema_arrow
    kinds = [field.type for field in schema if field.name in Columns.of(settings).named.values()]
    return any(map(pa.types.is_floating, kinds))


def is_looked_through(format: str, settings: PlanSettings) -> bool:
    """Return whether a source is a text file whose bytes decide how it is read; if plan.quoting is set, the key contains it instead."""
    return settings.quoting is None and (format == "csv" or format in _READ_OTHERWISE)


def sha256_of_text(uri: str, format: str) -> str:
    """Return the sha256 of a text's bytes, as `sha256_of` does; what `revision` needs is computed in the same pass."""
    if uri.endswith(tuple(COMPRESSIONS)):  # `revision` reads it separately, decompressed
        return sha256_of(uri)
    return _read_once(uri, format, facts_of(uri))[0]


@remembered
def _read_once(uri: str, format: str, facts: tuple[int, ...]) -> tuple[str, bool]:
    """Return the sha256 of the bytes of a text, decompressed, and whether it is read differently now."""
    digest = hashlib.sha256()
    chunks = _hashed(_chunks(uri), digest)
    if (
        format == "csv"
    ):  # with an odd number one is never closed: 0.1 lost the rows after it, 0.2 rejects the list
        is_other = sum(chunk.count(b'"') for chunk in chunks) % 2 == 1
    else:
        is_other = any(map(_READ_OTHERWISE[format], _overlapping(chunks)))
    collections.deque(chunks, maxlen=0)  # the rest is hashed too
    return digest.hexdigest(), is_other


def _hashed(chunks: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _opens_with_a_mark(block: bytes) -> bool:
    """Return whether a cell of a TSV begins with a quotation mark, which is now text."""
    return b'"' in block and any(end + b'"' in block for end in (b"\t", b"\n", b"\r"))


def _holds_a_constant(block: bytes) -> bool:
    """Return whether JSON may contain NaN or an infinity, which are no longer read as words."""
    return b"NaN" in block or b"Infinity" in block


def _goes_on_behind_the_url(block: bytes) -> bool:
    """Return whether a line contains a tab or a lone CR; both now end a URL."""
    return b"\t" in block or (b"\r" in block and re.search(rb"\r[^\n]", block) is not None)


_READ_OTHERWISE = {"tsv": _opens_with_a_mark, "jsonl": _holds_a_constant, "txt": _goes_on_behind_the_url}


def _overlapping(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks preceded by the last bytes of the chunks before them, the first preceded by a line end."""
    before = b"\n"
    for chunk in chunks:
        yield before + chunk
        before = (before + chunk)[-_OVERLAP_BYTES:]


def _chunks(uri: str) -> Iterator[bytes]:
    with open_stream(uri) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


@remembered
def _is_other_tar(uri: str, caption: str, facts: tuple[int, ...]) -> bool:
    """Return whether a tar's samples, images or JSON captions differ from those that version 0.1 read."""
    with open_tar(uri) as tar:
        first, second = itertools.tee(tar.members())
        before = (list(group) for _, group in itertools.groupby(first, key=lambda one: first_stem(one.name)))
        return any(
            group != now or _is_other_sample(tar, now, caption or None)
            for group, now in itertools.zip_longest(before, grouped(second))
        )


def _is_other_sample(tar: Tar, group: list[Member], caption: str | None) -> bool:
    """Return whether version 0.1 read other pictures in a group (it read at most one), or other captions in their JSON."""
    pictures = [one.name for one in group if is_picture(one.name)]
    seen = [
        one.name for one in group if one.name[len(first_stem(one.name)) + 1 :].lower() in _PICTURES_OF_0_1
    ]
    if pictures != seen[:1] or any(
        is_stranger(one.name) or last_ending(one.name) == "caption" for one in group
    ):
        return True
    is_blank = any(one.size == 0 and last_ending(one.name) == "txt" for one in group)
    notes = [one for one in group if last_ending(one.name) == "json" and one.size <= MAX_NOTE_BYTES]
    return any(_is_other_note(tar.read(one), caption, is_blank) for one in notes)


def _is_other_folder(uri: str, settings: PlanSettings) -> bool:
    """Return whether the JSON files of a folder give other captions, or one URL to several images; all else is in its digest."""
    columns = Columns.of(settings)
    contents = contents_of(uri, columns)
    key = f"_is_other_folder {uri} {columns.named.get('caption')}"
    return recalled(key, facts_of_folder(uri, contents), lambda: _is_read_otherwise(uri, contents, columns))


def _is_read_otherwise(uri: str, contents: Contents, columns: Columns) -> bool:
    shared = contents.notes.shared(contents.pictures, "json")
    for note in (path for (_, ending), path in contents.notes.items() if ending == "json"):
        data = Path(uri, note).read_bytes() if Path(uri, note).stat().st_size <= MAX_NOTE_BYTES else b""
        text = contents.notes.beside(note, "txt")
        is_blank = text is not None and Path(uri, text).stat().st_size == 0
        if note in shared or _is_other_note(data, columns.named.get("caption"), is_blank):
            return True
    return False


def _is_other_note(note: bytes, caption: str | None, is_blank: bool) -> bool:
    """Return whether JSON has lists of captions or constants, or its own caption if the text file next to it is blank."""
    try:
        found = parsed(note)
    except (ValueError, RecursionError):
        return False
    value = found.get(caption) if isinstance(found, dict) else None
    return _holds_a_constant(note) or isinstance(value, list | dict) or bool(is_blank and value)
