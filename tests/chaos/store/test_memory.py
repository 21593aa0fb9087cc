"""Promise 14: 2 GB of pictures through an object store of 200 MB, in the memory that a tenth of them takes."""

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
NUM_ROWS, NUM_FEW = 2_000, 200
OBJECT_STORE_MIB = 200
MAX_PROCESS_BYTES = 1.5e9
MAX_GROWTH = 1.1


@dataclass
class Peak:
    """The most memory seen: of one process, its own peak; of all together, shared pages counted once."""

    process: int = 0
    together: int = 0

    def look(self, pids: list[int]) -> None:
        together = 0
        for pid in pids:
            with contextlib.suppress(OSError, ValueError):
                status = Path(f"/proc/{pid}/status").read_text()
                self.process = max(self.process, _kib(status, "VmHWM") * 1024)
                together += _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss") * 1024
        self.together = max(self.together, together)


def _kib(text: str, name: str) -> int:
    return int(text.partition(f"{name}:")[2].split()[0])


def write_recipe(work: Path, server: FaultServer, num_rows: int) -> Path:
    urls = [server.url(f"/noise/{number % 40}.jpg?{number}") for number in range(num_rows)]
    pq.write_table(pa.table({"url": urls, "caption": ["noise"] * num_rows}), work / "list.parquet")
    recipe = {
        "name": "large",
        "root": str(work / "runs"),
        "cluster": {"object_store_mib": OBJECT_STORE_MIB},
        "plan": {"input": str(work / "list.parquet"), "number_sample_per_shard": 25},
        "download": {
            "resize_mode": "no",
            "encode_quality": 90,
            "host_connections": 32,
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
                peak.look([process.pid, *descendants(process.pid)])

        looking = threading.Thread(target=look)
        looking.start()
        try:
            assert process.wait(timeout=800) == 0, (recipe.parent / "said.log").read_text()[-3000:]
        finally:
            over.set()
            looking.join()
    assert "memory" not in (recipe.parent / "said.log").read_text().lower()
    return peak


@pytest.mark.timeout(1200)
def test_two_gigabytes_through_a_small_object_store(
    tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    peaks, stored = {}, {}
    with FaultServer() as server:
        for num_rows in (NUM_FEW, NUM_ROWS):
            work = tmp_path / str(num_rows)
            work.mkdir()
            started = time.monotonic()
            peaks[num_rows] = run(write_recipe(work, server, num_rows))
            opened = Run.open(work / "runs" / "large")
            shards = opened.shards("download")
            assert sum(shard.rows.kept for shard in shards) == num_rows
            stored[num_rows] = sum(entry.size for shard in shards for entry in shard.files)
            seconds = time.monotonic() - started
    few, many = peaks[NUM_FEW], peaks[NUM_ROWS]
    served = sum(len(noise(number % 40)) for number in range(NUM_ROWS))
    assert served > 2e9
    assert stored[NUM_ROWS] > 1.9e9
    assert many.process < MAX_PROCESS_BYTES
    assert many.process <= MAX_GROWTH * few.process, (many, few)
    assert many.together <= MAX_GROWTH * few.together, (many, few)
    promise(
        14,
        f"{served / 1e9:.1f} GB of pictures through a {OBJECT_STORE_MIB} MB object store in {seconds:.0f} s: largest process {many.process / 2**20:.0f} MiB,"
        f" {many.process / few.process:.2f} x a tenth of the rows; all processes {many.together / few.together:.2f} x",
    )
