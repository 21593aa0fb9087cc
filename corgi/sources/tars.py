"""Webdataset tars, read in place: tarfile reads the headers; nothing is unpacked, no link is followed, nothing is unpickled.

Only members with a picture's or caption's ending are used, and captions are read only up to a bound.
"""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from corgi.settings.errors import InputError
from corgi.sources.rows import Columns, chunked
from corgi.sources.samples import (
    MAX_NOTE_BYTES,
    NOTE_ENDINGS,
    Notes,
    Sample,
    Tally,
    cells_of,
    checked,
    first_stem,
    has_url,
    is_note,
    is_picture,
    is_stranger,
    sample_rows,
    without_identity,
)
from corgi.storage.paths import CHUNK_BYTES, first_line, open_file

_SAMPLE_ROWS = 1024
_BUFFER_BYTES = 2**18  # on object storage each read is a request
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError, LookupError)
"""What tarfile raises for a header that no legitimate writer produces."""


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, the offset of its bytes, and its size."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str | None:
        """Return the part of the name that the members of one sample share, as in the webdataset library: up to the first dot.

        None for a name without a dot or with nothing before its first dot; the library skips such members.
        """
        key = first_stem(self.name)
        name = self.name.rpartition("/")[2]
        is_hidden = name.startswith(".")
        return None if "." not in name or not key or (is_hidden and "." in key) else key


class _Headers:
    """The file object that tarfile gets: it reads at most MAX_NOTE_BYTES of each member's headers."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self.left = file, MAX_NOTE_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"an extended header is longer than {MAX_NOTE_BYTES >> 20} MiB")
        self.left -= size
        return self._file.read(size)


class Tar:
    """A tar opened for reading, through one buffer for headers and members."""

    def __init__(self, handle: pa.NativeFile, uri: str) -> None:
        """Take an open file; `uri` is its path or URI, for error messages."""
        self._file, self._place = io.BufferedReader(handle, _BUFFER_BYTES), uri
        self._size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        self.num_links = 0
        """Number of skipped pictures, captions and JSON files so far that are links or other members without their own bytes."""

    def members(self) -> Iterator[Member]:
        """Yield the regular members in order; links, devices, folders and sparse files are skipped.

        Raises:
            InputError: a header is not a tar's, or the file ends inside a member.

        """
        headers, archive = _Headers(self._file), None
        end = 0
        while archive is None or end < self._size:
            headers.left = MAX_NOTE_BYTES
            try:
                archive = archive or tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="replace")  # type: ignore[arg-type]
                info = archive.next()
            except _DAMAGE as error:
                raise self._broken(end, first_line(error)) from error
            if info is None:
                return self._check_end(archive.offset)
            vars(archive)["members"], archive.pax_headers = [], {}  # both would grow with the tar
            self._check(info, archive.offset)
            end = archive.offset
            if info.isreg() and not info.issparse() and not info.name.endswith("/"):
                yield Member(info.name, info.offset_data, info.size)
            elif not info.isdir() and (is_picture(info.name) or is_note(info.name)):
                self.num_links += 1

    def read(self, member: Member) -> bytes:
        """Return a member's bytes."""
        self._file.seek(member.offset)
        return self._file.read(member.size)

    def sha256(self, member: Member) -> str:
        """Return the sha256 of a member's bytes in lower-case hex; one part at a time is in memory."""
        digest, left = hashlib.sha256(), member.size
        self._file.seek(member.offset)
        while left > 0 and (chunk := self._file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        return digest.hexdigest()

    def detach(self) -> None:
        """Detach from the file without closing it."""
        self._file.detach()

    def _check(self, info: tarfile.TarInfo, end: int) -> None:
        """Raise InputError for errors that tarfile accepts: sizes that are not numbers, negative, or larger than the file."""
        written = info.pax_headers.get("size", "0")
        if not written.isdecimal():
            raise self._broken(info.offset, "an extended header's size is not a number")
        blocks = -(-self._size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        is_outside = info.isreg() and not info.issparse() and info.offset_data + info.size > self._size
        if info.size < 0 or not info.offset_data <= end <= blocks or is_outside:
            raise self._broken(info.offset, "a member is longer than the file")

    def _check_end(self, offset: int) -> None:
        """Raise InputError for a tar that tarfile considers ended although its next block is a broken header."""
        self._file.seek(offset)
        block = self._file.read(tarfile.BLOCKSIZE)
        if block.count(0) < len(block) or 0 < len(block) < tarfile.BLOCKSIZE:
            raise self._broken(offset, "the file ends inside a member, or a header is invalid")

    def _broken(self, offset: int, what: str) -> InputError:
        return InputError(
            f"{self._place} cannot be read as a tar: {what} (at byte {offset}); nothing was started; "
            "create it again or leave it out"
        )


@contextlib.contextmanager
def open_tar(uri: str) -> Iterator[Tar]:
    """Open a tar by its path or URI."""
    with open_file(uri) as handle:
        tar = Tar(handle, uri)
        try:
            yield tar
        finally:
            tar.detach()


def tar_rows(uri: str, columns: Columns, sha256: str, tally: Tally) -> Iterator[pa.RecordBatch]:
    """Yield one row per picture, and one per sample without a picture; count in `tally` the members that are not rows."""
    with open_tar(uri) as tar:
        groups = grouped(_members(tar, tally))
        found = (sample for group in groups for sample in _samples(tar, group, columns, sha256, tally))
        for block in chunked(checked(found, columns, uri), _SAMPLE_ROWS):
            yield sample_rows(block, columns, uri)


def grouped(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Yield the members of each sample: consecutive members with the same key. A member without a key is its own sample and does not separate others."""
    group: list[Member] = []
    alone: list[Member] = []
    for member in members:
        if member.key is None:
            alone.append(member)
        elif group and member.key == group[0].key:
            group.append(member)
        else:
            yield from _parted(group, alone)
            group, alone = [member], []
    yield from _parted(group, alone)


def _parted(group: list[Member], alone: list[Member]) -> Iterator[list[Member]]:
    if group:
        yield group
    yield from ([member] for member in alone)


def _members(tar: Tar, tally: Tally) -> Iterator[Member]:
    for member in tar.members():
        if is_stranger(member.name):
            tally["strangers"] += 1
        else:
            yield member
    tally["links"] += tar.num_links


def _samples(tar: Tar, group: list[Member], columns: Columns, sha256: str, tally: Tally) -> Iterator[Sample]:
    notes: Notes[Member] = Notes()
    for member in group:
        notes.put(member.name, member)
    pictures = [member for member in group if is_picture(member.name)]
    if not pictures:
        yield Sample(_cells(tar, notes, group[0].name, columns, tally), None, _no_content(group, sha256))
        return
    names = [picture.name for picture in pictures]
    shared = notes.shared(names, "json")
    num_notes = sum(is_note(member.name) for member in group)
    tally["notes_without_picture"] += num_notes - len(notes.taken_by(names))
    for picture in pictures:
        cells = _cells(tar, notes, picture.name, columns, tally)
        if notes.beside(picture.name, "json") in shared:
            cells = without_identity(cells, columns)
        content = None if has_url(cells, columns) else tar.sha256(picture)
        yield Sample(cells, f"{sha256}/{picture.offset}:{picture.size}", content)


def _cells(tar: Tar, notes: Notes[Member], name: str, columns: Columns, tally: Tally) -> dict[str, object]:
    found = [notes.beside(name, ending) for ending in NOTE_ENDINGS]
    short = [member if member and member.size <= MAX_NOTE_BYTES else None for member in found]
    tally["notes_unreadable"] += short.count(None) - found.count(None)
    note, caption = (tar.read(member) if member else None for member in short)
    return cells_of(note, caption, columns, tally)


def _no_content(group: list[Member], sha256: str) -> str:
    """Return an identity for a sample without a picture, so that it becomes one row of the ledger."""
    return hashlib.sha256(f"{sha256}/{group[0].offset}".encode()).hexdigest()
