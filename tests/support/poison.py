"""Decoders that do to their process what the worst body could; named by the body itself."""

import os
import signal
import time
from pathlib import Path

from corgi.imaging.decode import StoredImage, decode
from corgi.imaging.header import Header
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, scene


def poisoned(data: bytes, settings: DownloadSettings, header: Header | None) -> StoredImage | Rejection:
    """Decode a body, or die of it."""
    word, _, path = data[:200].partition(b":")
    if word == b"segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == b"hang":
        time.sleep(3600)
    if word == b"spin":
        while True:
            pass
    if word == b"memory":
        return _eaten(settings)
    if word == b"once":
        _die_once(Path(path.decode()))
        data = encoded(scene(1))
    return decode(data, settings)


def _eaten(settings: DownloadSettings) -> StoredImage | Rejection:
    half = bytearray(settings.decode_memory // 2)
    assert len(bytearray(settings.decode_memory)) > len(half)  # the limit must make this line raise
    return Rejection(Reason.ENGINE, "the limit does not hold")


def _die_once(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
