"""Storage of committed files: a disk or an object store. Names are relative to the root, with parts separated by "/".

A file is private until a manifest names it; only `put_if_absent` publishes, and it never overwrites.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO


def between(names: Iterable[str], first: str, end: str) -> list[str]:
    """Return the names from `first` to `end`, which is excluded; without `end`, to the last name."""
    return [name for name in names if name >= first and (not end or name < end)]


class Storage(ABC):
    """A store of files; a missing name raises FileNotFoundError, any other failure another OSError."""

    @abstractmethod
    def locate(self, name: str) -> str:
        """Return the absolute path or URL of a name, for messages."""

    @abstractmethod
    def check(self) -> None:
        """Check that `put_if_absent` never overwrites.

        Raises:
            StorageError: the store cannot be reached, or does not support conditional put.

        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file from an offset on, or fewer at its end."""

    @abstractmethod
    def measure(self, name: str) -> tuple[int, str]:
        """Return a file's size in bytes and its sha256, after reading it completely."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return a file's size in bytes without reading it."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder; empty if there is no such folder."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder."""

    @abstractmethod
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        """Yield the name and size in bytes of every file below a folder.

        Of the entries of the folder itself only names from `first` to `end`, which is excluded, are included; without `end`, to the last.
        """

    @abstractmethod
    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a new private file; its bytes are durable after the block has ended."""

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Publish a file, complete and durable, unless the name is taken; return whether it was published."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Replace a file atomically."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it exists."""

    @abstractmethod
    def make(self, folder: str) -> None:
        """Create a folder durably, before anything is put into it."""

    @abstractmethod
    def sync(self, folder: str) -> None:
        """Make the names in a folder durable."""

    @abstractmethod
    def local(self, name: str, sha256: str) -> Path:
        """Return a path of the file on this machine; its bytes are not verified."""
