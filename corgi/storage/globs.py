"""Globs in object storage, evaluated by fsspec on pyarrow's file systems."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# fsspec has no types

from collections.abc import Generator
from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from typing_extensions import override


class ListedFiles(ArrowFSWrapper):
    """A pyarrow file system whose `glob` raises if a folder cannot be listed; fsspec would leave the folder out."""

    cachable = False  # each instance wraps a different file system

    @override
    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: object = None,
        **kwargs: object,
    ) -> Generator[object]:
        refuse: Any = _refuse
        return super().walk(path, maxdepth, topdown, refuse, **kwargs)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
