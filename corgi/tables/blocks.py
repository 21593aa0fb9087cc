"""The blocks of a large file, each with its own hash, so that some columns can be read and checked without the rest of the file."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer, override

WHOLE_BYTES = 2**20
"""A file up to this size is read completely."""
PIECE_BYTES, MOST_BLOCKS = 2**16, 128
"""A block consists of as many pieces as needed for a file to have at most this many blocks: a large file has few hashes, and little of a small file is read.

The size of a piece cannot be changed: the hash of a block is the hash of its pieces' hashes.
"""
_FIRST_BLOCK_BYTES = 4 * 2**20
"""Size of the blocks of files whose hashes do not state a size; each block is hashed directly."""
_DIGEST_BYTES = 16
_SPAN_BYTES, _HELD_BYTES = 8 * 2**20, 16 * 2**20
"""Largest size of one request, and of a file's blocks kept in memory, since columns are read one after the other."""


def block_bytes(size: int) -> int:
    """Return the block size for a file of `size` bytes."""
    block = PIECE_BYTES
    while block * MOST_BLOCKS < size:
        block *= 2
    return block


class BlockHashes:
    """Computes the hashes of the blocks of a file while it is written."""

    def __init__(self) -> None:
        """Start with an empty file."""
        self._pieces = bytearray()
        self._piece, self._left = hashlib.sha256(), PIECE_BYTES

    def update(self, view: memoryview) -> None:
        """Add the next bytes."""
        while len(view):
            part = view[: self._left]
            self._piece.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left:
                self._end()

    def text(self, size: int) -> str:
        """Return the blocks' size and the first 16 bytes of the hash of each, as `65536/0f3c...`; empty for a file that is read completely."""
        if size <= WHOLE_BYTES:
            return ""
        if self._left < PIECE_BYTES:
            self._end()
        block = block_bytes(size)
        step = _DIGEST_BYTES * (block // PIECE_BYTES)
        digests = [
            _of_pieces(self._pieces[first : first + step], block)
            for first in range(0, len(self._pieces), step)
        ]
        return f"{block}/{b''.join(digests).hex()}"

    def _end(self) -> None:
        self._pieces += self._piece.digest()[:_DIGEST_BYTES]
        self._piece, self._left = hashlib.sha256(), PIECE_BYTES


def _of_pieces(pieces: bytes | bytearray, block: int) -> bytes:
    """Return the hash of a block, computed from the hashes of its pieces."""
    return bytes(pieces) if block == PIECE_BYTES else _hash(pieces)


def _hash(data: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


class _Digests:
    """The expected hash of each block of a file."""

    def __init__(self, text: str) -> None:
        size, _, digests = text.rpartition("/")
        self.block = int(size) if size else _FIRST_BLOCK_BYTES
        self._in_pieces, self._digests = bool(size), bytes.fromhex(digests)

    def fits(self, number: int, data: memoryview) -> bool:
        """Return whether a block's bytes are those that were written."""
        expected = self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]
        return self._of(data) == expected

    def _of(self, data: memoryview) -> bytes:
        if not self._in_pieces:
            return _hash(data)
        pieces = [_hash(data[first : first + PIECE_BYTES]) for first in range(0, len(data), PIECE_BYTES)]
        return _of_pieces(b"".join(pieces), self.block)


class BlockFile(io.RawIOBase):
    """A file of which only requested blocks are read; each is compared with its hash."""

    def __init__(self, size: int, digests: str, read_range: Callable[[int, int], bytes]) -> None:
        """Open the file; nothing is read yet.

        Args:
            size: size of the file, bytes.
            digests: what `BlockHashes.text` returned for it.
            read_range: returns a number of the file's bytes from an offset on.

        """
        self._size, self._digests, self._read_range = size, _Digests(digests), read_range
        self._held: dict[int, bytes] = {}
        self._offset = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._offset

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        self._offset = start + offset
        return self._offset

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer up to the end of the file; raises like `read`."""
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    @override
    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end: Arrow takes fewer bytes as the end of the file.

        Raises:
            ValueError: a block's bytes are not those that were written.

        """
        end = self._size if size < 0 else min(self._size, self._offset + size)
        found, block = bytearray(), self._digests.block
        while self._offset < end:
            number, first = divmod(self._offset, block)
            data = self._block(number, -(-end // block))
            part = data[first : first + end - self._offset]
            found += part
            self._offset += len(part)
        return bytes(found)

    def _block(self, number: int, end: int) -> bytes:
        """Return a block; if it is not in memory, it is read together with the following blocks that are not, up to block `end`."""
        if number not in self._held:
            last = number + 1
            most = number + max(1, _SPAN_BYTES // self._digests.block)
            while last < min(end, most) and last not in self._held:
                last += 1
            self._read(number, last)
        return self._held[number]

    def _read(self, number: int, last: int) -> None:
        block = self._digests.block
        start = number * block
        data = memoryview(self._read_range(start, min(last * block, self._size) - start))
        for at in range(number, last):
            part = data[at * block - start : (at + 1) * block - start]
            if not self._digests.fits(at, part):
                first = at * block
                raise ValueError(
                    f"bytes {first} to {min(first + block, self._size)} do not match their sha256"
                )
            self._held[at] = bytes(part)
        while len(self._held) > max(last - number, _HELD_BYTES // block):
            del self._held[next(iter(self._held))]


def columns_of(file: pq.ParquetFile, columns: list[str]) -> pa.Table | None:
    """Return some columns; None if they are most of the file, which is then read completely."""
    wanted = whole = 0
    for group in range(file.metadata.num_row_groups):
        for at in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(at)
            whole += chunk.total_compressed_size
            leaf = chunk.path_in_schema
            if any(leaf == name or leaf.startswith(f"{name}.") for name in columns):
                wanted += chunk.total_compressed_size
    if 2 * wanted > whole:
        return None
    table: pa.Table = file.read(columns, use_threads=False)
    return table.select(columns)


def rows_at(file: pq.ParquetFile, places: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Return some columns of the rows at these indices, in their order; only row groups that contain one of them are read."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    wanted = np.asarray(places, np.int64)
    holding = np.searchsorted(ends, wanted, side="right")
    groups = np.unique(holding)
    table: pa.Table = file.read_row_groups(groups.tolist(), list(columns), use_threads=False)
    first_in_file = (ends - sizes)[groups]
    first_in_table = np.cumsum([0, *np.array(sizes)[groups]])[:-1]
    read = np.searchsorted(groups, holding)
    return table.select(list(columns)).take(pa.array(first_in_table[read] + wanted - first_in_file[read]))


def schema_of(file: pq.ParquetFile) -> pa.Schema:
    """Return the columns of a file."""
    return file.schema_arrow
