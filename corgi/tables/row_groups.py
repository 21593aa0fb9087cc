"""A Parquet file that is read by row group: the offset of each row group, and the hash with which it is compared."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import hashlib
import io
import mmap
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer, override

ROWS = 1_000
"""Smallest number of rows of a row group, if the table has that many; a row group always has less than twice this number."""
ROW_GROUPS_FACT = "row_groups"
"""Fact of a shard: by table, the row groups of its file."""
_DIGEST_BYTES = 16


class RowGroupsFact(TypedDict):
    """Row groups as JSON; digests are hexadecimal."""

    rows: list[int]
    starts: list[int]
    digests: str


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The row groups of a file, followed by its footer."""

    rows: "array[int]"
    """Number of rows of each row group."""
    starts: "array[int]"
    """Offset of each row group, of the footer, and of the file's end, bytes."""
    digests: bytes
    """The first 16 bytes of the sha256 of each row group and of the footer."""

    @classmethod
    def of_fact(cls, told: RowGroupsFact) -> Self:
        """Return the row groups from a shard's facts."""
        return cls(array("q", told["rows"]), array("q", told["starts"]), bytes.fromhex(told["digests"]))

    def as_fact(self) -> RowGroupsFact:
        """Return them as JSON."""
        return {"rows": list(self.rows), "starts": list(self.starts), "digests": self.digests.hex()}

    def read(
        self, number: int, read_range: Callable[[int, int], bytes], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return a row group; `read_range` returns a number of the file's bytes from an offset on.

        Raises:
            ValueError: the bytes are not those that were written.

        """
        sparse = mmap.mmap(-1, self.starts[-1])  # pages to which nothing is written take no memory
        for part in (number, len(self.rows)):
            first, last = self.starts[part], self.starts[part + 1]
            data = read_range(first, last - first)
            if _digest(data) != self.digests[_DIGEST_BYTES * part : _DIGEST_BYTES * (part + 1)]:
                raise ValueError(f"bytes {first} to {last} do not match their sha256")
            sparse[first:last] = data
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(sparse)), page_checksum_verification=True)
        return file.read_row_group(number, columns=None if columns is None else list(columns))


def cut(num_rows: int) -> list[int]:
    """Return the sizes of the row groups of a table: they differ by at most one row, and are at least `ROWS` if there are that many rows."""
    number = max(1, num_rows // ROWS) if num_rows else 0
    return [num_rows * (part + 1) // number - num_rows * part // number for part in range(number)]


def write_row_groups(sink: BinaryIO | io.RawIOBase, table: pa.Table, sizes: Sequence[int]) -> RowGroups:
    """Write a table as a Parquet file with row groups of these sizes, with page checksums, and with vectors neither compressed nor dictionary-encoded."""
    if sum(sizes) != table.num_rows:
        raise ValueError(f"the row groups have {sum(sizes)} rows, but the table has {table.num_rows}")
    names = [field.name for field in table.schema if pa.types.is_string(field.type)]
    layout: dict[str, Any] = {"compression": dict.fromkeys(names, "zstd"), "use_dictionary": names}
    parts, first = _Parts(sink), 0
    with pq.ParquetWriter(
        parts, table.schema, write_page_checksum=True, store_schema=True, **layout
    ) as writer:
        for size in sizes:
            writer.write_table(table.slice(first, size), row_group_size=size)
            parts.end()
            first += size
    parts.end()
    return RowGroups(array("q", sizes), array("q", parts.starts), bytes(parts.digests))


class _Parts(io.RawIOBase):
    """Passes bytes on to a file and hashes them part by part."""

    def __init__(self, sink: BinaryIO | io.RawIOBase) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._size = 0
        self.starts = [0]
        self.digests = bytearray()

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        self._sink.write(view)
        self._hash.update(view)
        self._size += view.nbytes
        return view.nbytes

    def end(self) -> None:
        """End a part at the current end of the file."""
        self.starts.append(self._size)
        self.digests += self._hash.digest()[:_DIGEST_BYTES]
        self._hash = hashlib.sha256()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]
