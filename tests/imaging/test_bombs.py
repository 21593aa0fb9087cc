"""Promise 24: fifty bombs are refused, each within 100 ms, and the parent's memory does not notice."""

import asyncio
import time
from collections.abc import Callable

import psutil
import pytest

from corgi.imaging.decode import StoredImage, decode
from corgi.imaging.header import check_header
from corgi.imaging.metadata import png_of_pixels_only
from corgi.imaging.pool import DecoderPool
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from tests.support.hostile_pictures import Bomb, bombs, stuffed
from tests.support.pictures import encoded, scene

pytestmark = pytest.mark.slow

SETTINGS = DownloadSettings(image_size=64, decode_processes=1)
MAX_GROWTH_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def made() -> list[Bomb]:
    return bombs()


def test_fifty_bombs_cost_fifty_rows_and_nothing_else(
    made: list[Bomb], promise: Callable[[int, str], None]
) -> None:
    pool = DecoderPool(SETTINGS)
    try:
        asyncio.run(pool.decode(encoded(scene(1))))
        before = psutil.Process().memory_info().rss
        found = [asyncio.run(pool.decode(bomb.data)) for bomb in made]
        grown = psutil.Process().memory_info().rss - before
    finally:
        pool.close()
    verdicts = [
        (bomb.name, verdict.reason)
        for bomb, verdict in zip(made, found, strict=True)
        if isinstance(verdict, Rejection)
    ]
    assert len(verdicts) == len(made) == 50
    assert not [v for bomb, v in zip(made, verdicts, strict=True) if v[1] not in bomb.reasons]
    assert grown < MAX_GROWTH_BYTES
    promise(24, f"{len(verdicts)} of {len(made)} bombs refused, the parent {grown / 2**20:.0f} MiB larger")


def test_an_honest_picture_is_kept_whatever_texts_it_carries() -> None:
    for mebibytes in (0, 3, 9):
        for name, data in stuffed(mebibytes).items():
            found = decode(data, SETTINGS)
            assert isinstance(found, StoredImage), (mebibytes, name, found)
            assert (found.original_width, found.original_height) == scene(1).size


def test_no_reader_sees_the_texts_of_a_png() -> None:
    plain = encoded(scene(1), "PNG")
    assert png_of_pixels_only(plain) == plain
    for name, data in stuffed(3).items():
        if name.startswith("png"):
            assert png_of_pixels_only(data) == plain, name


def test_each_bomb_is_refused_at_once(made: list[Bomb], promise: Callable[[int, str], None]) -> None:
    """The parent's look at the header, and the child's whole decode, each take less than 100 ms of processor time."""
    slow, slowest = [], 0.0
    for bomb in made:
        for judge in (check_header, decode):
            started = time.process_time()
            judge(bomb.data, SETTINGS)
            seconds = time.process_time() - started
            slowest = max(slowest, seconds)
            if seconds > 0.1:
                slow.append((bomb.name, judge.__name__, seconds))
    assert not slow
    promise(24, f"header or whole decode of a bomb: at most {slowest * 1e3:.0f} ms of processor time")
