"""Pictures that are already there, read by the locations that a plan wrote, for the same bounded decoders as fetched ones.

A location is `SOURCE/INSIDE`: the digest of a source, then `offset:size` in a tar, `row group:row:column` in a Parquet file or
the path inside a folder. Where a source lies is told by the driver, never by a location, and a URL is never a location.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.fetching.response import Fetched
from corgi.settings.data import DownloadSettings, PlanSettings
from corgi.sources.folders import encoded_of
from corgi.sources.sources import HOLD_PICTURES, Source, sources
from corgi.storage.paths import open_file
from corgi.tables.schema import Reason

Places = dict[str, tuple[str, str]]
"""Where a source lies and its format, by its digest."""


def places_of(settings: PlanSettings) -> Places:
    """Return where the sources lie whose pictures are already there."""
    listed: list[Source] = sources(settings) if settings.input else []
    return {
        source.sha256: (source.path, source.format) for source in listed if source.format in HOLD_PICTURES
    }


class LocalReader:
    """Read pictures by location, in the order in which they lie; one file and one row group are open at a time."""

    def __init__(self, settings: DownloadSettings, places: Places) -> None:
        """Open nothing yet."""
        self._max_bytes = int(settings.max_bytes)
        self._places = places
        self._opened: tuple[str, pa.NativeFile] | None = None
        self._group: tuple[str, pa.Array] | None = None

    async def fetch_all(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> AsyncGenerator[tuple[int, Fetched], None]:
        """Yield each location's index and bytes; hashes of what a list says of the web's bytes are not asked here."""
        for index in sorted(range(len(urls)), key=lambda at: _order(urls[at])):
            yield index, await asyncio.to_thread(self.read, urls[index])

    def read(self, location: str) -> Fetched:
        """Return the bytes at a location, or why there are none."""
        name, _, inside = location.partition("/")
        if name not in self._places:
            return Fetched(reason=Reason.NO_PICTURE, detail="its source is not among the inputs")
        path, format = self._places[name]
        try:
            if format == "files":
                return self._of_file(Path(path), inside)
            if format == "webdataset":
                return self._of_tar(path, inside)
            return self._of_table(path, inside)
        except (OSError, ValueError, IndexError, pa.ArrowException):
            return Fetched(reason=Reason.NO_PICTURE, detail="its source cannot be read")

    async def close(self) -> None:
        """Close the open file."""
        self._close()

    def _of_file(self, folder: Path, inside: str) -> Fetched:
        path = folder / inside
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            raise ValueError("not a place inside the folder")
        return self._bounded(path.stat().st_size) or _found(path.read_bytes())

    def _of_tar(self, path: str, inside: str) -> Fetched:
        offset, size = map(int, inside.split(":"))
        if offset < 0 or size < 0:
            raise ValueError("not a place in a file")
        refused = self._bounded(size)
        if refused is not None:
            return refused
        handle = self._open(path)
        handle.seek(offset)
        data = handle.read(size)
        return (
            _found(data)
            if len(data) == size
            else Fetched(reason=Reason.NO_PICTURE, detail="its source was cut")
        )

    def _of_table(self, path: str, inside: str) -> Fetched:
        group, row, column = inside.split(":", 2)
        name = f"{path}/{group}/{column}"
        if self._group is None or self._group[0] != name:
            self._group = None
            with pq.ParquetFile(self._open(path), pre_buffer=False) as file:
                table = file.read_row_group(int(group), columns=[column], use_threads=False)
            self._group = (name, encoded_of(table[column].combine_chunks()))
        data = self._group[1][int(row)].as_py()
        return self._bounded(len(data)) or _found(data)

    def _bounded(self, size: int) -> Fetched | None:
        return (
            Fetched(reason=Reason.TOO_LARGE, detail="by its size", num_bytes=0)
            if size > self._max_bytes
            else None
        )

    def _open(self, path: str) -> pa.NativeFile:
        if self._opened is None or self._opened[0] != path or self._opened[1].closed:
            self._close()
            self._opened = (path, open_file(path))
        return self._opened[1]

    def _close(self) -> None:
        opened, self._opened, self._group = self._opened, None, None
        if opened is not None:
            opened[1].close()


def _found(data: bytes) -> Fetched:
    return Fetched(body=data, num_bytes=len(data))


def _order(location: str) -> tuple[str, tuple[int, ...], str]:
    name, _, inside = location.partition("/")
    numbers = tuple(int(part) for part in inside.split(":")[:2] if part.isdigit())
    return name, numbers, inside
