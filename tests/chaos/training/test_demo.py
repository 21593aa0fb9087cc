"""The demo's prior through its script: SIGKILL and resume, lost nodes; the same model."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corgi.tables.run import Run
from tests.support.process_tree import kill_tree
from tests.support.smoke_run import Smoke

HOME = Path(__file__).resolve().parents[3]
CELLS = [(0, "bf16"), (2, "bf16"), (3, "fp32")]
"""Stage 1 in fp32 is the recipe's own: tests/chaos/flow/test_kill.py kills that one; the other types are in test_bare.py. The decoder and
other worker counts are in tests/chaos/flow/test_trainings.py."""
SMALL = (
    "prior.variants=[shifted]",
    "prior.training.num_steps=60",
    "prior.training.log_every_steps=1",
    "prior.training.checkpoint_every_steps=10",
)
TIMEOUT_S = 240.0


def fresh(smoke: Smoke, root: Path, *without: str) -> Path:
    """Copy the run's root, but for scratch folders and the stages named."""
    gone = {str(smoke.runs / "store" / stage) for stage in (*without, "evaluate")}

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "work" or os.path.join(folder, name) in gone]

    shutil.copytree(smoke.runs, root, ignore=left_out)
    return root


def start(stage: str, smoke: Smoke, root: Path, *overrides: str, **environment: str) -> subprocess.Popen:
    command = [
        *(sys.executable, str(HOME / "pipelines" / f"{stage}.py"), "pipelines/recipes/smoke.yaml"),
        *(*smoke.overrides(root), "tracking.mode=disabled", *overrides),
    ]
    with Path(f"{root}.log").open("a") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=HOME,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def ended(process: subprocess.Popen, root: Path) -> None:
    assert process.wait(timeout=TIMEOUT_S) == 0, Path(f"{root}.log").read_text()[-5000:]


def committed(root: Path, stage: str) -> list[str]:
    found = root.glob(f"store/{stage}/*/work/*/checkpoints/step-*/COMMITTED.json")
    return sorted(path.parent.name for path in found)


def kill_after_a_checkpoint(process: subprocess.Popen, root: Path, stage: str) -> None:
    """SIGKILL every process of a run once it made a checkpoint it had not before."""
    before = set(committed(root, stage))
    wait_for(lambda: set(committed(root, stage)) - before, process, root)
    kill_tree(process)
    assert not list(root.glob(f"store/{stage}/*/work/*/final/weights.safetensors")), "it had ended already"


def wait_for(ready: Callable[[], Any], process: subprocess.Popen, root: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        assert process.poll() is None, Path(f"{root}.log").read_text()[-5000:]
        assert time.monotonic() < deadline, Path(f"{root}.log").read_text()[-5000:]
        time.sleep(0.02)


def made(root: Path, stage: str) -> dict[str, bytes]:
    """Return the bytes of every file a stage committed, by table."""
    run = Run.open(root / "smoke")
    return {
        entry.table: run.store.verified(shard, entry).read_bytes()
        for shard in run.shards(stage)
        for entry in shard.files
    }


def curve(root: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in made(root, "prior")["metrics_shifted"].splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def whole(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what gives the root of an unbroken run of the prior, one for each set of options."""
    roots: dict[tuple[str, ...], Path] = {}

    def of(*options: str) -> Path:
        if options not in roots:
            root = fresh(smoke, tmp_path_factory.mktemp("whole") / "runs", "prior")
            ended(start("prior", smoke, root, *options), root)
            roots[options] = root
        return roots[options]

    return of


def at(stage: int, precision: str) -> tuple[str, ...]:
    return (*SMALL, f"prior.training.zero_stage={stage}", f"prior.training.precision={precision}")


@pytest.mark.flow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "precision"), CELLS)
def test_a_killed_prior_is_bit_equal(
    smoke: Smoke, tmp_path: Path, whole: Callable[..., Path], promise: Any, stage: int, precision: str
) -> None:
    options = at(stage, precision)
    killed = fresh(smoke, tmp_path / "killed", "prior")
    kill_after_a_checkpoint(start("prior", smoke, killed, *options), killed, "prior")
    ended(start("prior", smoke, killed, *options), killed)
    assert made(killed, "prior") == made(whole(*options), "prior")
    assert len(curve(killed)) == 60
    promise(
        16,
        f"the demo's prior through pipelines/prior.py, 2 workers, stage {stage}, {precision}: averaged weights and 60 metric lines bit-equal after SIGKILL and resume",
    )


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Start a head without CPUs and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()


@pytest.mark.flow
@pytest.mark.timeout(600)
def test_three_lost_nodes_change_no_prior(
    smoke: Smoke, tmp_path: Path, whole: Callable[..., Path], cluster: Any, promise: Any
) -> None:
    lossy = fresh(smoke, tmp_path / "lossy", "prior")
    steps = (
        "prior.variants=[shifted]",
        "prior.training.num_steps=300",
        "prior.training.log_every_steps=1",
        "prior.training.checkpoint_every_steps=20",
    )
    elastic = ("prior.training.min_workers=1", "prior.training.max_failures=12")
    process = start("prior", smoke, lossy, *steps, *elastic, RAY_ADDRESS=cluster.address)
    for _ in range(3):
        before = set(committed(lossy, "prior"))
        wait_for(lambda before=before: set(committed(lossy, "prior")) - before, process, lossy)
        victim = next(node for node in cluster.list_all_nodes() if not node.head)
        cluster.remove_node(victim, allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ended(process, lossy)
    left, right = curve(lossy), curve(whole(*steps))
    assert left.keys() == right.keys()
    worst = max(abs(left[step] - right[step]) for step in left)
    assert worst < 1e-4
    promise(
        12,
        f"the demo's prior: 3 nodes removed and replaced, 2 elastic workers (least 1), loss within {worst:.0e} over {len(left)} steps",
    )
