"""SIGKILL of the whole run in the middle of four stages, then the same command: equal tables, equal weights."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from corgi.tables.run import Run
from tests.support.ports import free_port
from tests.support.process_tree import kill_tree
from tests.support.run_digests import digests

HOME = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 240
SCRATCH = "work"  # where a stage that trains keeps its checkpoints, beside its manifests


def _command(work: Path, port: int) -> list[str]:
    return [
        *(sys.executable, str(HOME / "pipelines" / "demo.py"), "--pictures", "300", "--port", str(port)),
        *("--work", str(work / "site"), "--recipe", "pipelines/recipes/smoke.yaml", f"root={work / 'runs'}"),
        "plan.number_sample_per_shard=64",
    ]


def _run(work: Path, port: int) -> str:
    done = subprocess.run(
        _command(work, port), capture_output=True, text=True, timeout=600, cwd=HOME, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def _kill_when(work: Path, port: int, ready: Callable[[], bool]) -> None:
    """Start the command in its own session and SIGKILL every process of it once `ready` says so."""
    with (work / "killed.log").open("w") as log:
        process = subprocess.Popen(
            _command(work, port), stdout=log, stderr=log, cwd=HOME, start_new_session=True
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            assert process.poll() is None, (work / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (work / "killed.log").read_text()[-3000:]
            time.sleep(0.05)
        kill_tree(process)


def _glob(work: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any((work / "runs" / "store").glob(pattern))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    work = tmp_path_factory.mktemp("unbroken")
    _run(work, free_port())
    return digests(work / "runs" / "smoke")


@pytest.mark.flow
@pytest.mark.timeout(1700)
def test_killed_in_four_stages_the_run_ends_as_an_unbroken_one(unbroken, tmp_path):
    port = free_port()
    for pattern in (
        "download/*/manifest-0.json",
        "embed/*/manifest-0.json",
        f"prior/*/{SCRATCH}/shifted/checkpoints/*/COMMITTED.json",
        f"decoder/*/{SCRATCH}/decoder/checkpoints/*/COMMITTED.json",
    ):
        _kill_when(tmp_path, port, _glob(tmp_path, pattern))
    said = _run(tmp_path, port)
    assert "done before" in said
    run = Run.open(tmp_path / "runs" / "smoke")
    uids = [
        uid
        for shard in run.shards("download")
        for uid in run.store.read(shard, "images", ["uid"])["uid"].to_pylist()
    ]
    assert len(uids) == len(set(uids))
    for manifest in run.stages().values():
        assert manifest.rows.rows_in == manifest.rows.kept + sum(manifest.rows.rejected.values())
    assert digests(tmp_path / "runs" / "smoke") == unbroken
