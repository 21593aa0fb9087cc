"""Bulk generation of 400 captions, SIGKILLed three times, on one worker and on two: equal tables, each caption once."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.inference.bulk import PAINTED
from corgi.tables.run import Run
from tests.support.painting_run import painting_run
from tests.support.process_tree import kill_tree
from tests.support.table_digest import table_digest

HOME = Path(__file__).resolve().parents[3]
ROWS, PER_SHARD = 400, 20
START_TIMEOUT_S = 240


def command(run: Run, prompts: Path, root: Path, workers: int) -> list[str]:
    script = str(HOME / "pipelines" / "generate_tables.py")
    options = ["--out", str(root), "--rows-per-shard", str(PER_SHARD), "--workers", str(workers), "--n", "2"]
    return [sys.executable, script, str(run.folder), str(prompts), *options]


def finish(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=HOME, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def kill_at(words: list[str], root: Path, shards: int) -> int:
    """Start the command in its own session and SIGKILL all of it once so many shards are committed; return how many are."""
    with (root.parent / "killed.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=HOME, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(committed(root)) < shards:
            assert process.poll() is None, (root.parent / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill_tree(process)
    return len(committed(root))


def committed(root: Path) -> list[Path]:
    return list((root / "store" / PAINTED).glob("*/manifest-0.json"))


def digests(root: Path) -> list[str]:
    out = Run.open(root / "result")
    return [
        table_digest(pa.concat_tables([out.store.read(shard, table) for shard in out.shards(PAINTED)]))
        for table in (PAINTED, "ledger")
    ]


@pytest.mark.flow
@pytest.mark.timeout(1700)
def test_killed_three_times_on_one_and_two_workers_the_tables_are_equal(tmp_path: Path, promise) -> None:
    run = painting_run(tmp_path)
    prompts = tmp_path / "captions.parquet"
    captions: list[str | None] = [f"picture number {row}" for row in range(ROWS)]
    captions[123] = " "
    pq.write_table(pa.table({"caption": captions}), prompts)
    finish(command(run, prompts, tmp_path / "unbroken", 1))
    wanted, kills = digests(tmp_path / "unbroken"), []
    for workers in (1, 2):
        root = tmp_path / f"workers-{workers}"
        words = command(run, prompts, root, workers)
        kills.append([kill_at(words, root, shards) for shards in (2, 7, 12)])
        assert "399 of 400 rows painted" in finish(words)
        assert digests(root) == wanted
        out = Run.open(root / "result")
        pictures = pa.concat_tables(
            [out.store.read(s, PAINTED, ["row", "number"]) for s in out.shards(PAINTED)]
        )
        pairs = [tuple(row.values()) for row in pictures.to_pylist()]
        assert len(set(pairs)) == len(pairs) == 2 * (ROWS - 1)
        assert max(kills[-1]) < ROWS // PER_SHARD  # each was killed before its end
    promise(
        1, f"bulk generation of {ROWS} captions killed at {kills} of {ROWS // PER_SHARD} shards: tables equal"
    )
