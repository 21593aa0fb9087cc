"""Webdataset tars, read as they lie there: headers are walked, nothing is unpacked, followed or unpickled.

Only members with a picture's or caption's ending are looked at, and only captions are read, within a bound.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from corgi.settings.errors import InputError
from corgi.sources.cells import parsed
from corgi.sources.rows import Columns, chunked
from corgi.storage.paths import CHUNK_BYTES, first_line, open_file
from corgi.tables.schema import Reason

PICTURE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif")
MAX_NOTE_BYTES = 2**20
"""Longest caption, metadata or extended header that is read; a longer caption is none, a longer header is an error."""
_BLOCK = tarfile.BLOCKSIZE
_DATA_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_SAMPLE_ROWS = 1024


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, where its bytes start, and how many there are."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """Return what the members of one sample share: the name up to the first dot after the last slash."""
        folder, slash, name = self.name.rpartition("/")
        return folder + slash + name.partition(".")[0]

    @property
    def ending(self) -> str:
        """Return what follows that dot, lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def members(handle: Any, place: str) -> Iterator[Member]:
    """Yield a tar's regular members in order; links, devices, folders and sparse files are stepped over.

    Raises:
        InputError: a header is not a tar's, or the file ends inside a member.

    """
    size, offset = handle.size(), 0
    name, length = None, None
    while offset + _BLOCK <= size:
        header = _header(handle, offset, place)
        if header is None:
            return
        start = offset + _BLOCK
        stored = header.size if length is None or header.type in _EXTENDING else length
        if not 0 <= stored <= size - start:
            raise _broken(place, offset, "a member is longer than the file")
        offset = start + -(-stored // _BLOCK) * _BLOCK
        if header.type in _EXTENDING:
            name, length = _extended(handle, header, start, place, (name, length))
            continue
        if header.type in _DATA_TYPES and not (header.name or "").endswith("/"):
            yield Member(name or header.name, start, stored)
        name, length = None, None
    if offset < size or size == 0:
        raise _broken(place, offset, "the file ends inside a member" if size else "the file is empty")


def tar_rows(place: str, columns: Columns, sha256: str) -> Iterator[pa.RecordBatch]:
    """Yield a row a sample: neighbouring members of one key. A sample without a picture is a row with that reason."""
    with open_file(place) as handle:
        samples = (list(found) for _, found in groupby(members(handle, place), key=lambda member: member.key))
        for block in chunked((_sample(handle, sample, columns, sha256) for sample in samples), _SAMPLE_ROWS):
            yield sample_rows(block, columns, place)


@dataclass(frozen=True)
class Sample:
    """What lies beside a picture that is already there."""

    cells: dict[str, Any]
    location: str | None
    content: str | None


def sample_rows(samples: list[Sample], columns: Columns, place: str) -> pa.RecordBatch:
    """Return ROWS of samples."""
    read = columns.read([sample.cells for sample in samples], place)
    reasons = [None if sample.location else str(Reason.NO_PICTURE) for sample in samples]
    return columns.rows(
        read,
        place,
        location=pa.array([sample.location for sample in samples], pa.string()),
        content=pa.array([sample.content for sample in samples], pa.string()),
        reason=pa.array(reasons, pa.string()),
    )


def cells_of(note: bytes | None, caption: bytes | None, columns: Columns) -> dict[str, Any]:
    """Return the cells that a sample's JSON and text give; what is no JSON object, or no UTF-8, says nothing."""
    cells: dict[str, Any] = {}
    if note is not None:
        try:
            found = parsed(note)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            captions = columns.named.get("caption")
            cells = {
                key: value
                for key, value in found.items()
                if key == captions or not isinstance(value, list | dict)
            }
    if caption is not None and "caption" in columns.named:
        cells[columns.named["caption"]] = caption.decode("utf-8", "replace").strip()
    return cells


def _sample(handle: Any, sample: list[Member], columns: Columns, sha256: str) -> Sample:
    by_ending: dict[str, Member] = {}
    for member in sample:
        by_ending.setdefault(member.ending, member)
    picture = next((member for member in sample if member.ending in PICTURE_ENDINGS), None)
    notes = [by_ending.get(ending) for ending in ("json", "txt")]
    note, caption = (
        _read(handle, member) if member is not None and member.size <= MAX_NOTE_BYTES else None
        for member in notes
    )
    cells = cells_of(note, caption, columns)
    if picture is None:
        return Sample(cells, None, _no_content(sample, sha256))
    has_url = str(cells.get(columns.named.get("url", "")) or "").strip() != ""
    content = None if has_url else _sha256(handle, picture)
    return Sample(cells, f"{sha256}/{picture.offset}:{picture.size}", content)


def _no_content(sample: list[Member], sha256: str) -> str:
    """Return an identity for a sample without a picture, so that it stays one row of the ledger."""
    return hashlib.sha256(f"{sha256}/{sample[0].offset}".encode()).hexdigest()


def _read(handle: Any, member: Member) -> bytes:
    handle.seek(member.offset)
    return handle.read(member.size)


def _sha256(handle: Any, member: Member) -> str:
    digest, left = hashlib.sha256(), member.size
    handle.seek(member.offset)
    while left > 0 and (chunk := handle.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.XGLTYPE,
)


def _header(handle: Any, offset: int, place: str) -> tarfile.TarInfo | None:
    handle.seek(offset)
    block = handle.read(_BLOCK)
    if block.count(0) == _BLOCK:
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise _broken(place, offset, first_line(error)) from error


def _extended(
    handle: Any, header: tarfile.TarInfo, start: int, place: str, known: tuple[str | None, int | None]
) -> tuple[str | None, int | None]:
    """Return the name and size that a GNU or pax header gives to the next member; everything else in it is ignored."""
    if header.size > MAX_NOTE_BYTES:
        raise _broken(place, start, f"an extended header is longer than {MAX_NOTE_BYTES >> 20} MiB")
    handle.seek(start)
    data = handle.read(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "replace"), known[1]
    if header.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        return known
    records = _pax(data)
    try:
        size = int(records[b"size"]) if b"size" in records else known[1]
    except ValueError as error:
        raise _broken(place, start, "an extended header's size is no number") from error
    path = records.get(b"path")
    return path.decode("utf-8", "replace") if path else known[0], size


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Return the `length key=value` records of a pax header, up to the first that is none."""
    records: dict[bytes, bytes] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 7:
            break
        length = int(digits)
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        if length <= len(digits) + 1 or not equals:
            break
        records[key] = value
    return records


def _broken(place: str, offset: int, what: str) -> InputError:
    return InputError(
        f"{place} cannot be read as a tar: {what} (at byte {offset}); nothing was started; make it again or leave it out"
    )
