"""Embed beside download with the real stages and a trained tower: the same tables, killed while both are at work or not."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.overlap import tower_of
from corgi.tables.run import Run
from tests.support.ports import free_port
from tests.support.process_tree import kill_tree
from tests.support.smoke_run import Smoke

HOME = Path(__file__).resolve().parents[3]
TIMEOUT_S = 300


def start(smoke: Smoke, root: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [
        *(
            sys.executable,
            "pipelines/demo.py",
            "--recipe",
            "pipelines/recipes/smoke.yaml",
            "--pictures",
            "200",
        ),
        *(
            "--port",
            str(free_port()),
            "--work",
            str(root.parent / "site"),
            "--until",
            "embed",
            f"root={root}",
        ),
        *("tower=null", f"embed.towers={tower_of(Run.open(smoke.runs / 'smoke'))}"),
        *("plan.number_sample_per_shard=8", *overrides),
    ]
    with Path(f"{root}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=HOME)


def ended(process: subprocess.Popen[bytes], root: Path) -> str:
    assert process.wait(timeout=TIMEOUT_S) == 0, said(root)[-5000:]
    return Run.open(root / "smoke").stages()["embed"].digest


def said(root: Path) -> str:
    return Path(f"{root}.log").read_text()


def committed(root: Path, stage: str) -> int:
    return len(list(root.glob(f"store/{stage}/*/manifest-*.json")))


@pytest.mark.flow
@pytest.mark.timeout(1200)
def test_followed_or_in_turn_killed_or_not_the_vectors_are_the_same(smoke: Smoke, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("in-turn", "followed", "killed")]
    in_turn = ended(start(smoke, roots[0], "cluster.side_by_side=false"), roots[0])
    assert "embed: follows download" not in said(roots[0])
    assert ended(start(smoke, roots[1]), roots[1]) == in_turn
    assert "embed: follows download, shard by shard" in said(roots[1])
    process, end = start(smoke, roots[2], "download.connections=1"), time.monotonic() + TIMEOUT_S
    while not committed(roots[2], "embed"):
        assert process.poll() is None, said(roots[2])[-5000:]
        assert time.monotonic() < end
        time.sleep(0.1)
    kill_tree(process)
    before = committed(roots[2], "embed")
    assert 0 < before < committed(roots[0], "embed")
    assert ended(start(smoke, roots[2]), roots[2]) == in_turn
