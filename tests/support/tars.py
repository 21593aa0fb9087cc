"""Tars for tests: honest webdataset shards, and headers no honest writer makes."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.support.pictures import encoded, scene


def picture(seed: int) -> bytes:
    """Return a small JPEG."""
    return encoded(scene(seed))


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """Write regular members in order; a time with a fraction gives each a pax header, as webdataset's writer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(num: int, **columns: Any) -> list[tuple[str, bytes]]:
    """Return members of `num` samples: picture, caption, and JSON with `columns`, each called with the number."""
    found = []
    for number in range(num):
        found += [(f"{number:05d}.jpg", picture(number)), (f"{number:05d}.txt", f"picture {number}".encode())]
        if columns:
            values = {name: make(number) for name, make in columns.items()}
            found.append((f"{number:05d}.json", json.dumps(values).encode()))
    return found


def special(name: str, kind: bytes, size: int = 0, target: str = "") -> bytes:
    """Return one header of a given type and claimed size, checksum right."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info.tobuf(tarfile.GNU_FORMAT)


def end() -> bytes:
    """Return the two blocks that end a tar."""
    return bytes(1024)
