"""Promises 32 and 33 in full: the clock, file times, hash seeds and the number of workers change no byte."""

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import libfaketime
import pytest

from corgi.tables.run import Run
from tests.support import toy_stages

LIBRARY = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


def contents(root: Path) -> dict[str, str]:
    """Return the sha256 of every committed file by stage, shard and table, and every stage's digest."""
    run = Run.open(root / "toy")
    found = {name: manifest.digest for name, manifest in run.stages().items()}
    for stage in list(found):
        for shard in run.shards(stage):
            data = run.store.path(shard, "rows").read_bytes()
            found[f"{stage}/{shard.shard}"] = hashlib.sha256(data).hexdigest()
    return found


def run_toy(root: Path, **environment: str) -> dict[str, str]:
    root.mkdir(exist_ok=True)
    (root / "recipe.yaml").write_text(f"{toy_stages.RECIPE}root: {root}\n")
    command = [sys.executable, "-m", "tests.support.toy_stages", str(root / "recipe.yaml")]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return contents(root)


def faked(offset: str) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": offset,
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


def year(environment: dict[str, str]) -> int:
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.gmtime().tm_year)"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(said.stdout)


def test_the_clock_decides_nothing(tmp_path, promise):
    now = time.gmtime().tm_year
    assert year(faked("-3650d")) <= now - 9  # the clock is really another one
    assert year(faked("+3650d")) >= now + 9
    wanted = run_toy(tmp_path / "now")
    assert run_toy(tmp_path / "past", **faked("-3650d")) == wanted
    assert run_toy(tmp_path / "future", **faked("+3650d")) == wanted
    assert jumped(tmp_path / "jump") == wanted
    assert shuffled(tmp_path / "mtimes") == wanted
    promise(
        32,
        "clock 10 years back, 10 years ahead, jumping by 20 years mid-run, file times shuffled: equal bytes",
    )


def jumped(root: Path) -> dict[str, str]:
    """Run while the clock jumps by twenty years and back."""
    root.mkdir()
    (root / "pause").write_text("0.2")
    stamp = root / "stamp"
    stamp.write_text("-3650d")
    stop = threading.Event()

    def jump() -> None:
        for number in range(1000):
            if stop.wait(0.15):
                return
            stamp.write_text("+3650d" if number % 2 == 0 else "-3650d")

    jumper = threading.Thread(target=jump)
    jumper.start()
    try:
        return run_toy(root, **{**faked(""), "FAKETIME": "", "FAKETIME_TIMESTAMP_FILE": str(stamp)})
    finally:
        stop.set()
        jumper.join()


def shuffled(root: Path) -> dict[str, str]:
    """Run, shuffle every file's times, run again by force."""
    run_toy(root)
    rng = random.Random(0)
    for path in sorted(root.rglob("*")):
        os.utime(path, (rng.randrange(2**31), rng.randrange(2**31)))
    assert run_toy(root) == contents(root)
    return contents(root)


@pytest.mark.parametrize("seeds", [("0", "1", "4242")])
def test_hash_seeds_change_no_byte(tmp_path, promise, seeds):
    found = [run_toy(tmp_path / seed, PYTHONHASHSEED=seed) for seed in seeds]
    assert found[0] == found[1] == found[2]
    promise(33, f"{len(seeds)} hash seeds: {len(found[0])} digests and files equal")
