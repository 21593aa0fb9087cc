"""Images stored in inputs, read by the locations in the plan, for the same bounded decoders as downloaded images.

A location is `SOURCE/INSIDE`: the digest of a source, then `offset:size` in a tar, `row group:row:column` in a Parquet file or
the path inside a folder. The driver passes each source's path; a location never contains it, and a URL is never a location.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.fetching.response import Body
from corgi.settings.data import DownloadSettings, PlanSettings
from corgi.sources.folders import encoded_of
from corgi.sources.sources import HOLD_PICTURES, Source, sources
from corgi.storage.paths import open_file
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

Locations = dict[str, tuple[str, str]]
"""Path or URI of a source and its format, by the source's digest."""


def locations_of(settings: PlanSettings) -> Locations:
    """Return the paths and formats of the sources that contain images, by digest."""
    listed: list[Source] = sources(settings) if settings.input else []
    return {
        source.sha256: (source.path, source.format) for source in listed if source.format in HOLD_PICTURES
    }


class LocalReader:
    """Read images by location, in storage order; one file and one row group are open at a time."""

    def __init__(self, settings: DownloadSettings, locations: Locations) -> None:
        """Take the settings and locations; nothing is opened yet."""
        self._max_bytes = int(settings.max_bytes)
        self._locations = locations
        self._opened: tuple[str, pa.NativeFile] | None = None
        self._group: tuple[str, pa.Array] | None = None
        self._reading = asyncio.Lock()

    async def fetch_all(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> AsyncGenerator[tuple[int, Body | Rejection], None]:
        """Yield each location's index and body; expected hashes describe bytes from the web and are not checked here."""
        async with (
            self._reading
        ):  # one shard at a time: two would alternate between files and open them again and again
            for index in sorted(range(len(urls)), key=lambda index: _order(urls[index])):
                yield index, await asyncio.to_thread(self.read, urls[index])

    def read(self, location: str) -> Body | Rejection:
        """Return the body at a location, or the rejection if there is none."""
        name, _, inside = location.partition("/")
        if name not in self._locations:
            return Rejection(Reason.NO_PICTURE, "its source is not among the inputs")
        path, format = self._locations[name]
        try:
            if format == "files":
                return self._of_file(Path(path), inside)
            if format == "webdataset":
                return self._of_tar(path, inside)
            return self._of_table(path, inside)
        except (OSError, ValueError, IndexError, pa.ArrowException):
            return Rejection(Reason.NO_PICTURE, "its source cannot be read")

    async def close(self) -> None:
        """Close the open file."""
        self._close()

    def _of_file(self, folder: Path, inside: str) -> Body | Rejection:
        path = folder / inside
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            raise ValueError("not a path inside the folder")
        return self._bounded(path.stat().st_size) or Body(path.read_bytes())

    def _of_tar(self, path: str, inside: str) -> Body | Rejection:
        offset, size = map(int, inside.split(":"))
        if offset < 0 or size < 0:
            raise ValueError("not a range in a file")
        rejection = self._bounded(size)
        if rejection is not None:
            return rejection
        handle = self._open(path)
        handle.seek(offset)
        data = handle.read(size)
        return Body(data) if len(data) == size else Rejection(Reason.NO_PICTURE, "its source was cut")

    def _of_table(self, path: str, inside: str) -> Body | Rejection:
        group, row, column = inside.split(":", 2)
        name = f"{path}/{group}/{column}"
        if self._group is None or self._group[0] != name:
            self._group = None
            with pq.ParquetFile(self._open(path), pre_buffer=False) as file:
                table = file.read_row_group(int(group), columns=[column], use_threads=False)
            self._group = (name, encoded_of(table[column].combine_chunks()))
        data = self._group[1][int(row)].as_py()
        return self._bounded(len(data)) or Body(data)

    def _bounded(self, size: int) -> Rejection | None:
        return Rejection(Reason.TOO_LARGE, "by its size") if size > self._max_bytes else None

    def _open(self, path: str) -> pa.NativeFile:
        if self._opened is None or self._opened[0] != path or self._opened[1].closed:
            self._close()
            self._opened = (path, open_file(path))
        return self._opened[1]

    def _close(self) -> None:
        opened, self._opened, self._group = self._opened, None, None
        if opened is not None:
            opened[1].close()


def _order(location: str) -> tuple[str, tuple[int, ...], str]:
    name, _, inside = location.partition("/")
    numbers = tuple(int(part) for part in inside.split(":")[:2] if part.isdigit())
    return name, numbers, inside
