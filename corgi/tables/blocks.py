"""The blocks of a large file, each with a hash of its own: some columns are read and checked without the rest of the file."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer, override

BLOCK_BYTES = 4 * 2**20
"""A file that is not larger is read whole."""
_DIGEST_BYTES = 16
_HELD = 4
"""Blocks of a file in memory: columns are read one after the other."""


class BlockHashes:
    """The hashes of the blocks of a file that is being written."""

    def __init__(self) -> None:
        """Start with an empty file."""
        self._digests = bytearray()
        self._block, self._left = hashlib.sha256(), BLOCK_BYTES

    def update(self, view: memoryview) -> None:
        """Go on with further bytes."""
        while len(view):
            part = view[: self._left]
            self._block.update(part)
            self._left -= len(part)
            view = view[len(part) :]
            if not self._left:
                self._end()

    def hex(self, size: int) -> str:
        """Return the first 16 bytes of the sha256 of each block as hex digits; nothing of a file of one block."""
        if size <= BLOCK_BYTES:
            return ""
        if self._left < BLOCK_BYTES:
            self._end()
        return self._digests.hex()

    def _end(self) -> None:
        self._digests += self._block.digest()[:_DIGEST_BYTES]
        self._block, self._left = hashlib.sha256(), BLOCK_BYTES


class BlockFile(io.RawIOBase):
    """A file of which the blocks that are asked for are read and compared with their hashes."""

    def __init__(self, size: int, digests: str, read_range: Callable[[int, int], bytes]) -> None:
        """Open the file; nothing is read yet.

        Args:
            size: bytes of the file.
            digests: what `BlockHashes.hex` returned for it.
            read_range: returns the file's bytes from an offset on, so many.

        """
        self._size, self._digests, self._read_range = size, bytes.fromhex(digests), read_range
        self._blocks: dict[int, bytes] = {}
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
        """Fill a buffer as far as one block goes.

        Raises:
            ValueError: the block is not what was written.

        """
        view = memoryview(buffer).cast("B")
        if self._offset >= self._size or not len(view):
            return 0
        number, first = divmod(self._offset, BLOCK_BYTES)
        part = self._block(number)[first : first + len(view)]
        view[: len(part)] = part
        self._offset += len(part)
        return len(part)

    @override
    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, fewer at the end only: Arrow takes a short answer for the end of the file.

        Raises:
            ValueError: a block is not what was written.

        """
        wanted = self._size - self._offset if size < 0 else min(size, self._size - self._offset)
        found = bytearray(max(0, wanted))
        view, filled = memoryview(found), 0
        while filled < len(found):
            filled += self.readinto(view[filled:])
        return bytes(found)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * BLOCK_BYTES
            length = min(BLOCK_BYTES, self._size - first)
            data = self._read_range(first, length)
            expected = self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]
            if hashlib.sha256(data).digest()[:_DIGEST_BYTES] != expected:
                raise ValueError(f"bytes {first} to {first + length} do not match their sha256")
            if len(self._blocks) == _HELD:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = data
        return self._blocks[number]


def columns_of(file: pq.ParquetFile, columns: list[str]) -> pa.Table | None:
    """Return some columns; None if they are most of the file, which is then read whole."""
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
    """Return some columns of the rows at these places, in their order; only row groups that hold one of them are read."""
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
