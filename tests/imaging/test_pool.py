"""The bounded children: whatever a body does to its decoder costs that body and nothing else."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pebble import ProcessPool
from pydantic import ByteSize

from corgi.imaging.decode import StoredImage, decode
from corgi.imaging.header import Header
from corgi.imaging.pool import DecoderPool
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, scene
from tests.support.poison import poisoned
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

SETTINGS = DownloadSettings(
    image_size=32, decode_processes=2, decode_timeout_s=4, decode_memory=ByteSize(2**28)
)
GOOD = [encoded(scene(seed)) for seed in range(20)]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    running = DecoderPool(SETTINGS, poisoned)
    yield running
    running.close()


def decode_all(pool: DecoderPool, bodies: list[bytes]) -> list[StoredImage | Rejection]:
    async def run() -> list[StoredImage | Rejection]:
        slots = asyncio.Semaphore(pool.max_in_flight)

        async def one(body: bytes) -> StoredImage | Rejection:
            async with slots:
                return await pool.decode(body)

        return await asyncio.gather(*map(one, bodies))

    return asyncio.run(run())


def test_a_child_decodes_as_this_process_would(pool: DecoderPool) -> None:
    assert decode_all(pool, GOOD) == [decode(body, SETTINGS) for body in GOOD]


POISONS = {
    b"segfault": Reason.DECODER_CRASH,
    b"kill": Reason.DECODER_CRASH,
    b"hang": Reason.DECODE_TIMEOUT,
    b"spin": Reason.DECODE_TIMEOUT,
    b"memory": Reason.DECODE_FAILED,
}


def test_poison_costs_exactly_its_own_row(pool: DecoderPool, promise: Callable[[int, str], None]) -> None:
    reasons, seconds, kept = {}, [], 0
    for poison in POISONS:
        started = time.monotonic()
        found = decode_all(pool, [*GOOD[:7], poison, *GOOD[7:]])
        seconds.append(time.monotonic() - started)
        rejected = found.pop(7)
        reasons[poison] = rejected.reason if isinstance(rejected, Rejection) else None
        kept += sum(isinstance(picture, StoredImage) for picture in found)
    assert reasons == POISONS
    assert kept == len(POISONS) * len(GOOD)
    promise(
        13,
        f"{len(POISONS)} poisons (segfault, kill, hang, spin, memory): a row each, {kept} of {kept} others kept, {max(seconds):.1f} s the slowest",
    )


def test_one_crash_that_is_not_the_bodys_fault_costs_nothing(pool: DecoderPool, tmp_path: Path) -> None:
    (found,) = decode_all(pool, [b"once:" + str(tmp_path / "mark").encode()])
    assert isinstance(found, StoredImage)
    assert (tmp_path / "mark").exists()


def test_children_that_die_while_they_start_are_started_again(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([BrokenPipeError("a child"), ConnectionResetError("the fork server")])
    schedule = ProcessPool.schedule

    def failing(self: ProcessPool, *args: Any, **kwargs: Any) -> Any:
        for failure in failures:
            raise failure
        return schedule(self, *args, **kwargs)

    monkeypatch.setattr(ProcessPool, "schedule", failing)
    monkeypatch.setattr("corgi.imaging.pool.START_WAITS_S", (0.01, 0.01))
    assert decode_all(pool, GOOD[:3]) == [decode(body, SETTINGS) for body in GOOD[:3]]
    assert next(failures, None) is None


def in_child(data: bytes, settings: DownloadSettings, header: Header | None) -> Rejection:
    """Report what the child has loaded and where it runs."""
    heavy = sorted({"ray", "torch", "aiohttp", "pytest"} & set(sys.modules))
    return Rejection(Reason.ENGINE, f"{os.getpid()} {','.join(heavy)}")


def together(data: bytes, settings: DownloadSettings, header: Header | None) -> Rejection:
    """Wait in a folder until two children are at work in it."""
    folder = Path(data.decode())
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(list(folder.iterdir())) > 1, "two children are at work")
    return Rejection(Reason.ENGINE, f"{len(list(folder.iterdir()))} at work")


def test_several_bodies_in_flight_keep_every_child_busy(tmp_path: Path) -> None:
    running = DecoderPool(SETTINGS.model_copy(update={"decode_timeout_s": PATIENCE_S}), together)
    try:
        found = decode_all(running, [str(tmp_path).encode()] * 4)
    finally:
        running.close()
    assert found == [Rejection(Reason.ENGINE, "2 at work")] * 4


def test_children_load_decoders_only(tmp_path: Path) -> None:
    """Start a pool from a main module that has loaded Ray's share of weight, as a Ray worker has."""
    script = tmp_path / "heavy_main.py"
    script.write_text(
        "import asyncio, sys\n"
        "import aiohttp, pytest\n"
        "from corgi.imaging.pool import DecoderPool\n"
        "from corgi.settings.data import DownloadSettings\n"
        "from tests.imaging.test_pool import in_child\n"
        "open(sys.argv[1], 'a').write('main imported\\n')\n"
        "pool = DecoderPool(DownloadSettings(), in_child)\n"
        "print(asyncio.run(pool.decode(b'')).detail)\n"
        "pool.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "log")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == "main imported\n"


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, os, signal\n"
        "from corgi.imaging.pool import DecoderPool\n"
        "from corgi.settings.data import DownloadSettings\n"
        "from tests.imaging.test_pool import in_child\n"
        "pool = DecoderPool(DownloadSettings(), in_child)\n"
        "print(asyncio.run(pool.decode(b'')).detail.split()[0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == -signal.SIGKILL
    child = Path("/proc") / done.stdout.strip()
    wait_until(lambda: not child.exists(), "the child has ended")
