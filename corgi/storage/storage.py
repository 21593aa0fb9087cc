"""Where committed files are stored: a disk or an object store. Names are relative to the root, parts separated by "/".

What is written is private until a manifest names it; only `put_if_absent` publishes, and it never overwrites.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO


def between(names: Iterable[str], first: str, end: str) -> list[str]:
    """Return the names from `first` to before `end`; without `end`, to the last."""
    return [name for name in names if name >= first and (not end or name < end)]


class Storage(ABC):
    """A store of files; a missing name raises FileNotFoundError, any other failure another OSError."""

    @abstractmethod
    def locate(self, name: str) -> str:
        """Return a name as a person would write it: an absolute path or a URL."""

    @abstractmethod
    def check(self) -> None:
        """Make sure that `put_if_absent` is one.

        Raises:
            StorageError: the store cannot be reached, or does not support conditional put.

        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return a file's bytes from an offset on, so many or up to its end."""

    @abstractmethod
    def measure(self, name: str) -> tuple[int, str]:
        """Return a file's bytes and sha256, read to its end."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return a file's bytes without reading it."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder; none when there is no such folder."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder."""

    @abstractmethod
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        """Yield every file below a folder, with its bytes.

        Of what is in the folder itself only names from `first` to before `end` count; without `end`, to the last.
        """

    @abstractmethod
    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a new private file; when the block has ended its bytes are durable."""

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
        """Make a folder durable before anything is put into it."""

    @abstractmethod
    def sync(self, folder: str) -> None:
        """Make the names in a folder durable."""

    @abstractmethod
    def local(self, name: str, sha256: str) -> Path:
        """Return a path on this machine that holds the file; not verified."""
