"""Bits that change between a storage and its reader."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from corgi.storage.storage import Storage


@contextmanager
def flipped_reads(storage: Storage) -> Iterator[list[int]]:
    """Let every ranged read have a bit of the file flipped; yield the list of its byte's place and of its mask, to be set."""
    flipped, real = [0, 0], storage.read_range

    def read_range(name: str, offset: int, length: int) -> bytes:
        data = bytearray(real(name, offset, length))
        place, mask = flipped
        if offset <= place < offset + len(data):
            data[place - offset] ^= mask
        return bytes(data)

    with mock.patch.object(storage, "read_range", read_range):
        yield flipped
