"""Promise 25: 20,000 mutants through the bounded children: 0 escapes, 0 hangs, no child lost for good."""

import asyncio
import os
import time
from collections.abc import Callable

from corgi.imaging.decode import StoredImage, decode
from corgi.imaging.header import Header
from corgi.imaging.pool import DecoderPool
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from tests.support.mutants import mutant

NUM_MUTANTS = int(os.environ.get("CORGI_MUTANTS", "20000"))
MAX_SECONDS = 6.0
SETTINGS = DownloadSettings(image_size=16, max_pixels=100_000, decode_processes=2)


def timed(data: bytes, settings: DownloadSettings, header: Header | None) -> StoredImage | Rejection:
    """Decode a body; a slow one is told apart from the others."""
    started = time.monotonic()
    found = decode(data, settings, header)
    if time.monotonic() - started > MAX_SECONDS:
        raise AssertionError("slower than six seconds")
    return found


def test_mutants_neither_escape_nor_hang(promise: Callable[[int, str], None]) -> None:
    pool = DecoderPool(SETTINGS, timed)

    async def run() -> list[StoredImage | Rejection]:
        slots = asyncio.Semaphore(pool.max_in_flight)

        async def one(number: int) -> StoredImage | Rejection:
            async with slots:
                return await pool.decode(mutant(number))

        return await asyncio.gather(*map(one, range(NUM_MUTANTS)))

    started = time.monotonic()
    try:
        found = asyncio.run(run())
    finally:
        pool.close()
    kept = sum(isinstance(one, StoredImage) for one in found)
    crashes = sum(isinstance(one, Rejection) and "crash" in one.reason for one in found)
    slow = sum(isinstance(one, Rejection) and "timeout" in one.reason for one in found)
    seconds = time.monotonic() - started
    assert len(found) == NUM_MUTANTS
    assert crashes == 0
    assert slow == 0, "a mutant, or the machine, took five seconds over one picture"
    promise(
        25, f"{len(found):,} mutants, {kept:,} still pictures: 0 escapes, 0 crashes, 0 hangs, {seconds:.0f} s"
    )
