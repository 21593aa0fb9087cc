"""An object store in memory that counts what is asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from obstore.store import MemoryStore
from typing_extensions import override

from corgi.storage.objects import ObjectStorage


@dataclass
class Asked:
    """Requests to a store, and the bytes of their answers and of what was stored."""

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class CountingObjects(ObjectStorage):
    """The storage of object stores over one in memory; each call is counted as the requests it makes."""

    def __init__(self, url: str, cache: Path, asked: Asked) -> None:
        """Start empty; `cache` holds copies."""
        super().__init__(url, cache, MemoryStore())
        self._asked, self._lock = asked, Lock()
        self._copied = set[tuple[str, str]]()

    def _count(self, read: int = 0, written: int = 0) -> None:
        with self._lock:  # readers are threads
            self._asked.requests += 1
            self._asked.bytes_read += read
            self._asked.bytes_written += written

    @override
    def read(self, name: str) -> bytes:
        data = super().read(name)
        self._count(read=len(data))
        return data

    @override
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        data = super().read_range(name, offset, length)
        self._count(read=len(data))
        return data

    @override
    def size(self, name: str) -> int:
        self._count()
        return super().size(name)

    @override
    def names(self, folder: str) -> list[str]:
        self._count()
        return super().names(folder)

    @override
    def folders(self, folder: str) -> list[str]:
        self._count()
        return super().folders(folder)

    @override
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        self._count()
        return super().walk(folder, first, end)

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        with super().create(name) as sink:
            yield sink
        self._count(written=super().size(name))

    @override
    def put_if_absent(self, name: str, data: bytes) -> bool:
        self._count(written=len(data))
        return super().put_if_absent(name, data)

    @override
    def replace(self, name: str, data: bytes) -> None:
        self._count(written=len(data))
        super().replace(name, data)

    @override
    def remove(self, name: str) -> None:
        self._count()
        super().remove(name)

    @override
    def local(self, name: str, sha256: str) -> Path:
        is_new = (name, sha256) not in self._copied
        self._copied.add((name, sha256))
        path = super().local(name, sha256)
        if is_new:
            self._count(read=path.stat().st_size)
        return path
