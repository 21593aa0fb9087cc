"""Paths, URIs and globs of inputs on local disks and in object storage, opened through pyarrow's filesystems."""

import functools
import glob
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs

from corgi.settings.errors import InputError
from corgi.storage.endpoint import s3_endpoint
from corgi.storage.file_memory import remembered

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
CHUNK_BYTES = 4 * 2**20
_ARROW_SCHEMES = frozenset({"gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"})
_WEB_SCHEMES = frozenset({"http", "https", "ftp", "ftps", "sftp"})


def opened(uri: str) -> tuple[pa_fs.FileSystem, str]:
    """Return the filesystem of a path or URI, and the path inside it.

    Raises:
        InputError: the scheme is unknown or one of the web's, or the address contains credentials.

    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _filesystem("file"), uri
    if scheme == "file":
        return _filesystem("file"), "/" + rest.lstrip("/")
    if "@" in rest.partition("/")[0]:
        raise InputError(
            f"{scheme}://…: an input's address contains credentials; nothing was started; set them in the environment"
        )
    if scheme in _WEB_SCHEMES or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise InputError(
            f"{uri}: inputs are read from disks and object storage, not from {scheme}; nothing was started; fetch it first"
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    try:
        return _filesystem(scheme, s3_endpoint(), region), rest
    except (ImportError, ValueError, pa.ArrowException, OSError) as error:
        raise InputError(
            f"{uri}: {scheme} cannot be opened ({first_line(error)}); nothing was started; install its driver or copy the input"
        ) from error


def expand(pattern: str) -> list[str]:
    """Return the files and folders that a path, URI or glob names, sorted; empty if there are none.

    Raises:
        InputError: the glob of a URI is invalid.
        OSError: a folder cannot be listed.

    """
    filesystem, path = opened(pattern)
    if isinstance(filesystem, pa_fs.LocalFileSystem):
        return [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))
    if filesystem.get_file_info(path.rstrip("/")).type != pa_fs.FileType.NotFound:
        return [pattern.rstrip("/")]
    from corgi.storage.globs import ListedFiles

    scheme = pattern.partition("://")[0]
    is_wrapped = isinstance(filesystem, pa_fs.PyFileSystem)
    files = filesystem.handler.fs if is_wrapped else ListedFiles(filesystem)
    try:
        found = [str(name) for name in files.glob(path)]
    except ValueError as error:
        raise InputError(
            f"{pattern} is not a valid glob ({first_line(error)}); nothing was started; write folders of any depth as /**/"
        ) from error
    return sorted(f"{scheme}://{name.lstrip('/')}" for name in found)


def inside(folder: str) -> list[str]:
    """Return the files directly inside a folder, sorted."""
    filesystem, path = opened(folder)
    infos = filesystem.get_file_info(pa_fs.FileSelector(path))
    names = (info.base_name for info in infos if info.type == pa_fs.FileType.File)
    return sorted(f"{folder.rstrip('/')}/{name}" for name in names)


def is_folder(uri: str) -> bool:
    """Return whether a path or URI is a folder."""
    filesystem, path = opened(uri)
    return filesystem.get_file_info(path.rstrip("/") or "/").type == pa_fs.FileType.Directory


def is_local(uri: str) -> bool:
    """Return whether a path or URI is on a disk of this machine."""
    return isinstance(opened(uri)[0], pa_fs.LocalFileSystem)


def size_of(uri: str) -> int:
    """Return a file's stored size, bytes."""
    filesystem, path = opened(uri)
    return filesystem.get_file_info(path).size or 0


def open_file(uri: str) -> pa.NativeFile:
    """Open a file for random access."""
    filesystem, path = opened(uri)
    return filesystem.open_input_file(path)


def open_stream(uri: str) -> pa.NativeFile:
    """Open a file for reading from its start, decompressed if its ending names a compression."""
    filesystem, path = opened(uri)
    compression = COMPRESSIONS.get(Path(path).suffix)
    return filesystem.open_input_stream(path, compression=compression)


def sha256_of(uri: str) -> str:
    """Return the sha256 of a file's bytes in lower-case hex; a file that has not changed is read once per process."""
    return sha256_once(uri, facts_of(uri))


def facts_of(uri: str) -> tuple[int, ...]:
    """Return a file's size, times and similar facts. While they are the same, the bytes are assumed to be the same."""
    filesystem, path = opened(uri)
    if isinstance(filesystem, pa_fs.LocalFileSystem):
        facts = Path(path).stat()
        return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    info = filesystem.get_file_info(path)
    return (info.size or 0, info.mtime_ns or 0)


def ending(uri: str) -> str:
    """Return a name's ending in lower case, ignoring the ending of a compression."""
    name = uri.rpartition("/")[2]
    stem, dot, last = name.rpartition(".")
    if f".{last}" in COMPRESSIONS:
        stem, dot, last = stem.rpartition(".")
    return f".{last}".lower() if dot else ""


def first_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0].strip()


@remembered
def sha256_once(uri: str, facts: tuple[int, ...]) -> str:
    """Return the sha256 of a file, read once while its facts (size, times) are the same."""
    filesystem, path = opened(uri)
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path, compression=None) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@functools.lru_cache(maxsize=16)
def _filesystem(scheme: str, endpoint: str = "", region: str = "") -> pa_fs.FileSystem:
    """Return one filesystem per scheme, endpoint and region; credentials come only from the environment."""
    if scheme == "file":
        return pa_fs.LocalFileSystem()
    if scheme == "s3":
        return _s3(endpoint, region)
    if scheme in _ARROW_SCHEMES:
        return pa_fs.FileSystem.from_uri(f"{scheme}://")[0]
    import fsspec

    return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(fsspec.filesystem(scheme)))


def _s3(endpoint: str, region: str) -> pa_fs.FileSystem:
    options: dict[str, Any] = {
        "region": region or None,
        "connect_timeout": 10,
        "request_timeout": 60,
        "retry_strategy": pa_fs.AwsStandardS3RetryStrategy(max_attempts=4),
    }
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"endpoint_override": host, "scheme": scheme, "region": region or "us-east-1"}
    return pa_fs.S3FileSystem(**options)
