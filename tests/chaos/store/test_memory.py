"""Promise 14: 2 GB of pictures through an object store of 200 MB; ten times the rows in the same memory."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.tables.run import Run
from tests.support.fault_server import FaultServer, noise
from tests.support.process_tree import descendants

HOME = Path(__file__).resolve().parents[3]
NUM_LARGE, NUM_ROWS = 2_000, 2_000
OBJECT_STORE_MIB = 200
MAX_PROCESS_BYTES = 1.5e9
ROWS_PER_SHARD = 250
MAX_GROWTH = 1.1
MAX_BYTES_PER_SHARD = 2**20
"""Of the driver, where Ray Data keeps notes of each shard, whatever its rows: some hundred kilobytes each of the first hundred,
20 kB each of 40,000 (`python -m benchmarks.fleet --ray`)."""


@dataclass
class Peak:
    """The most memory seen: of the driver and of any other process, their own peaks; of all together, shared pages counted once."""

    driver: int = 0
    worker: int = 0
    together: int = 0

    @property
    def process(self) -> int:
        """Return the peak of the largest process."""
        return max(self.driver, self.worker)

    def look(self, driver: int) -> None:
        together = 0
        for pid in (driver, *descendants(driver)):
            with contextlib.suppress(OSError, ValueError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                peak = _kib(status, "VmHWM") * 1024
                if pid == driver:
                    self.driver = max(self.driver, peak)
                else:
                    self.worker = max(self.worker, peak)
                together += _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") * 1024
        self.together = max(self.together, together)


def _kib(text: str, name: str) -> int:
    return int(text.partition(f"{name}:")[2].split()[0])


def write_recipe(work: Path, server: FaultServer, paths: list[str], rows_a_shard: int) -> Path:
    listed = pa.table({"url": [server.url(path) for path in paths], "caption": ["a picture"] * len(paths)})
    pq.write_table(listed, work / "list.parquet")
    recipe = {
        "name": "large",
        "root": str(work / "runs"),
        "cluster": {"object_store_mib": OBJECT_STORE_MIB},
        "plan": {"input": str(work / "list.parquet"), "number_sample_per_shard": rows_a_shard},
        "download": {
            "resize_mode": "no",
            "encode_quality": 90,
            "num_actors": 2,
            "allow_private": [server.address],
        },
        "embed": {"towers": [{"name": "rn", "model": "RN50", "pretrained": "random"}]},
    }
    path = work / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def run(recipe: Path) -> Peak:
    """Run up to the download stage and return the most memory that it and all below it took."""
    command = [sys.executable, str(HOME / "pipelines" / "full.py"), str(recipe), "--until", "download"]
    peak, over = Peak(), threading.Event()
    with (recipe.parent / "said.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=HOME, start_new_session=True)

        def look() -> None:
            while not over.wait(0.25):
                peak.look(process.pid)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            assert process.wait(timeout=800) == 0, (recipe.parent / "said.log").read_text()[-3000:]
        finally:
            over.set()
            looking.join()
    said = [recipe.parent / "said.log", *recipe.parent.rglob("logs/*.log")]
    assert len(said) > 1
    assert not any("memory" in path.read_text().lower() for path in said)
    return peak


def kept_and_peak(
    work: Path, server: FaultServer, paths: list[str], rows_a_shard: int
) -> tuple[int, int, Peak]:
    """Run over URLs; return pictures kept, bytes stored and the peak."""
    work.mkdir()
    peak = run(write_recipe(work, server, paths, rows_a_shard))
    opened = Run.open(work / "runs" / "large")
    shards = opened.shards("download")
    stored = sum(entry.size for shard in shards for entry in shard.files)
    return sum(shard.rows.kept for shard in shards), stored, peak


@pytest.mark.timeout(1200)
def test_two_gigabytes_through_a_small_object_store(
    tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    started = time.monotonic()
    with FaultServer() as server:
        paths = [f"/noise/{number % 40}.jpg?{number}" for number in range(NUM_LARGE)]
        kept, stored, peak = kept_and_peak(tmp_path / "large", server, paths, 100)
    served = sum(len(noise(number % 40)) for number in range(NUM_LARGE))
    assert kept == NUM_LARGE
    assert served > 2e9
    assert stored > 1.9e9
    assert peak.process < MAX_PROCESS_BYTES
    promise(
        14,
        f"{served / 1e9:.1f} GB of pictures through a {OBJECT_STORE_MIB} MB object store in {time.monotonic() - started:.0f} s:"
        f" largest process {peak.process / 2**20:.0f} MiB, nothing killed",
    )


@pytest.mark.timeout(900)
def test_ten_times_the_rows_take_the_same_memory(tmp_path: Path, promise: Callable[[int, str], None]) -> None:
    peaks = {}
    with FaultServer() as server:
        for num_rows in (NUM_ROWS, 10 * NUM_ROWS):
            paths = [f"/ok/{number % 300}.jpg?{number}" for number in range(num_rows)]
            kept, _, peaks[num_rows] = kept_and_peak(tmp_path / str(num_rows), server, paths, ROWS_PER_SHARD)
            assert kept == num_rows
    few, many = peaks[NUM_ROWS], peaks[10 * NUM_ROWS]
    assert many.worker <= MAX_GROWTH * few.worker, (many, few)
    assert many.driver <= few.driver + MAX_BYTES_PER_SHARD * 9 * NUM_ROWS / ROWS_PER_SHARD, (many, few)
    assert many.together <= MAX_GROWTH * few.together, (many, few)
    promise(
        14,
        f"{NUM_ROWS:,} rows and {10 * NUM_ROWS:,}: the peak of the largest worker {many.worker / few.worker:.2f} x,"
        f" of all together {many.together / few.together:.2f} x",
    )
