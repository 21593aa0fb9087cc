"""Storage of committed files on a disk, local or shared."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from corgi.storage.files import make_folder, publish, sha256_of_file, sync, write_file
from corgi.storage.retries import patient
from corgi.storage.storage import Storage, between


class Disk(Storage):
    """A folder of a disk, local or shared."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is created until something is written."""
        self.folder = folder

    @override
    def locate(self, name: str) -> str:
        return str(self.folder / name)

    @override
    def check(self) -> None:
        """Do nothing: `link` fails for a taken name on every disk."""

    @override
    @patient
    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @override
    @patient
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with (self.folder / name).open("rb") as handle:
            handle.seek(offset)
            return handle.read(length)

    @override
    @patient
    def measure(self, name: str) -> tuple[int, str]:
        path = self.folder / name
        return path.stat().st_size, sha256_of_file(path)

    @override
    @patient
    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    @override
    @patient
    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.folder / folder)
        except FileNotFoundError:
            return []

    @override
    @patient
    def folders(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.folder / folder) if entry.is_dir())
        except FileNotFoundError:
            return []

    @override
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        top = str(self.folder / folder)
        for below, folders, files in os.walk(top):
            if below == top:
                folders[:] = between(folders, first, end)
                files[:] = between(files, first, end)
            for name in files:
                path = Path(below, name)
                yield path.relative_to(self.folder).as_posix(), path.stat().st_size

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        with (self.folder / name).open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())

    @override
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write a private file, sync it, and `link` it under the name: it appears completely or not at all, and never replaces a file."""
        path = self.folder / name
        return publish(path, data, path.with_name(f".{uuid.uuid4().hex}.json"))

    @override
    def replace(self, name: str, data: bytes) -> None:
        write_file(self.folder / name, data)

    @override
    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @override
    def make(self, folder: str) -> None:
        make_folder(self.folder / folder)

    @override
    def sync(self, folder: str) -> None:
        sync(self.folder / folder)

    @override
    def local(self, name: str, sha256: str) -> Path:
        return self.folder / name
