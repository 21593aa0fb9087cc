"""An object store for committed tables: s3://, gs:// or az:// through obstore.

Credentials and endpoint come from the environment of the node (AWS_*, GOOGLE_*, AZURE_*), never from a recipe.
"""

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ParamSpec, TypeVar, cast

from typing_extensions import override

from corgi.settings.errors import StorageError
from corgi.storage import copies
from corgi.storage.endpoint import is_plain_http, s3_endpoint
from corgi.storage.errors import storage_full
from corgi.storage.files import sha256_of_file
from corgi.storage.retries import patient
from corgi.storage.storage import Storage, between

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_BUFFER_BYTES = 16 * 2**20
_NOT_A_PART = "non-partial response"
"""Part of obstore's error message if a server ignores the range of a request."""


def _as_os_error(call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Raise errors of an object store as FileNotFoundError, FileExistsError or another OSError, with a one-line message."""

    @wraps(call)
    def translated(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        with _translated():
            return call(*arguments, **named)

    return translated


@contextmanager
def _translated() -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(errno.EEXIST, _line(error)) from error
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, _line(error)) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _line(error)) from error
    except (exceptions.GenericError, exceptions.JoinError) as error:
        raise OSError(errno.EIO, _line(error)) from error
    except exceptions.BaseError as error:
        raise OSError(errno.EINVAL, _line(error)) from error


def _line(error: Exception) -> str:
    told = str(error).partition("Debug source:")[0].partition(": <?xml")[0]
    return " ".join(told.split())[:300]


class ObjectStorage(Storage):
    """A prefix of a bucket; manifests are published by conditional put, everything else is stored under private names."""

    def __init__(self, url: str, cache: Path | None = None, store: "ObjectStore | None" = None) -> None:
        """Open the store of a URL, such as s3://bucket/runs/store; `store` is an obstore store to use instead.

        Raises:
            StorageError: the kind of store is unknown, or its settings in the environment are wrong.

        """
        self.url = url.rstrip("/")
        self._cache = cache
        try:
            with _translated():
                self._store = store if store is not None else opened(self.url)
        except (ValueError, OSError) as error:
            raise StorageError(
                f"{self.url} cannot be opened ({_line(error)}); nothing was started; give a path or an s3://, gs:// or az:// URL"
            ) from error

    @override
    def locate(self, name: str) -> str:
        return f"{self.url}/{name}"

    @override
    def check(self) -> None:
        """Write a small object twice under one name and check that the second write is rejected; read a part of the object.

        Raises:
            StorageError: the store cannot be reached, or lacks conditional put or ranged reads.

        """
        name = f".probe/{uuid.uuid4().hex}"
        try:
            first, second = self._put_new(name, b"123"), self._put_new(name, b"456")
            part = self._part_of(name)
            self.remove(name)
        except OSError as error:
            raise StorageError(
                f"{self.url} failed a conditional put or a read ({error.strerror or error}); nothing was started; name a reachable store with put-if-absent and credentials in the environment"
            ) from error
        if not first or second:
            raise StorageError(
                f"{self.url} does not support conditional put, so commits would not be safe; nothing was started; choose another root"
            )
        if part != b"2":
            raise StorageError(
                f"{self.url} does not support ranged reads; nothing was started; choose another root"
            )

    def _part_of(self, name: str) -> bytes | None:
        """Return the second byte of an object; None if the store returns a different part than requested."""
        try:
            return self.read_range(name, 1, 1)
        except OSError as error:
            if _NOT_A_PART in str(error):
                return None
            raise

    @override
    @patient
    @_as_os_error
    def read(self, name: str) -> bytes:
        return bytes(self._store.get(name).bytes())

    @override
    @patient
    @_as_os_error
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return bytes(self._store.get_range(name, start=offset, length=length))

    @override
    @patient
    @_as_os_error
    def measure(self, name: str) -> tuple[int, str]:
        size, total = 0, hashlib.sha256()
        for chunk in self._store.get(name).stream():
            total.update(chunk)
            size += len(chunk)
        return size, total.hexdigest()

    @override
    @patient
    @_as_os_error
    def size(self, name: str) -> int:
        return int(self._store.head(name)["size"])

    @override
    @patient
    @_as_os_error
    def names(self, folder: str) -> list[str]:
        found = self._store.list_with_delimiter(f"{folder}/" if folder else None)["objects"]
        return [str(meta["path"]).rpartition("/")[2] for meta in found]

    @override
    @patient
    @_as_os_error
    def folders(self, folder: str) -> list[str]:
        found = self._store.list_with_delimiter(f"{folder}/" if folder else None)["common_prefixes"]
        return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in found)

    @override
    @patient
    @_as_os_error
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        start = f"{folder}/" if folder else ""
        offset = f"{start}{first[:-1]}" if first else None  # only names after the offset are listed
        found = list[tuple[str, int]]()
        for part in self._store.list(start or None, offset=offset, chunk_size=1000):
            tops = [str(meta["path"])[len(start) :].partition("/")[0] for meta in part]
            wanted = frozenset(between(tops, first, end))
            found += [
                (meta["path"], meta["size"]) for top, meta in zip(tops, part, strict=True) if top in wanted
            ]
            if end and min(end) > "/" and tops[-1] >= end:
                break  # paths are sorted like their first names, unless those contain characters that sort before "/"
        return iter(found)

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Open a new object; it appears completely when the block ends, and not at all if the block raises."""
        import obstore

        with _translated():
            writer = obstore.open_writer(self._store, name, buffer_size=_BUFFER_BYTES)
            yield cast(BinaryIO, writer)
            writer.close()

    @override
    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Put an object on condition that there is none; if the reply was lost, the object is recognised by its bytes."""
        return self._put_new(name, data) or self.read(name) == data

    def _put_new(self, name: str, data: bytes) -> bool:
        try:
            with _translated():
                self._store.put(name, data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    @override
    def replace(self, name: str, data: bytes) -> None:
        try:
            with _translated():
                self._store.put(name, data)
        except OSError as error:
            storage_full(error, self.locate(name))

    @override
    def remove(self, name: str) -> None:
        try:
            with _translated():
                self._store.delete(name)
        except FileNotFoundError:
            return

    @override
    def make(self, folder: str) -> None:
        """Do nothing: an object store has no folders."""

    @override
    def sync(self, folder: str) -> None:
        """Do nothing: an object that was put is durable."""

    @override
    @patient
    def local(self, name: str, sha256: str) -> Path:
        """Return a copy on this machine, stored under the hash in its manifest; an existing copy is checked first.

        The folder of copies is bounded (corgi/storage/copies.py).
        """
        folder = self._cache or _own_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{sha256[:32]}-{name.rpartition('/')[2]}"
        if path.exists() and sha256_of_file(path) == sha256:
            copies.used(path)
            return path
        private = folder / f".{uuid.uuid4().hex}"
        try:
            with private.open("wb") as sink, _translated():
                for chunk in self._store.get(name).stream():
                    sink.write(chunk)
            private.replace(path)
        finally:
            private.unlink(missing_ok=True)
        copies.bound(folder)
        return path


def opened(url: str) -> "ObjectStore":
    """Return the obstore store of a URL; its credentials and endpoint come from the environment.

    Raises:
        ValueError, OSError, obstore.exceptions.BaseError: the kind of store is unknown, or its settings are wrong.

    """
    from obstore.store import from_url

    if url.startswith("file://"):
        return from_url(url)
    endpoint = s3_endpoint() if url.startswith("s3") else ""
    return from_url(
        url,
        config={"endpoint": endpoint} if endpoint else None,
        client_options={"allow_http": is_plain_http(endpoint), "timeout": timedelta(seconds=120)},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
    )


def _own_folder() -> Path:
    """Return this user's folder for copies; raise StorageError if it belongs to another user."""
    folder = Path(os.environ.get("CORGI_CACHE") or Path(tempfile.gettempdir()) / f"corgi-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise StorageError(
            f"{folder} belongs to another user; nothing was read; set CORGI_CACHE to a folder of your own"
        )
    return folder
