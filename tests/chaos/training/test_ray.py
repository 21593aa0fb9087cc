"""Ray Train on a cluster that loses workers and nodes: the same curve, one W&B run, and a checkpoint before a node goes."""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from corgi.settings.recipe import Recipe
from corgi.settings.training import TrackingSettings
from corgi.tracking.offline import await_exit
from corgi.tracking.wandb_sender import run_id
from corgi.training.checkpoint import final_weights
from corgi.training.trainer import train
from corgi.training.training import Training
from tests.support.offline import offline_steps
from tests.support.tiny_training import tiny_training
from tests.support.workers import run_workers

RECIPE = Recipe(name="tests")

OPTIONS: dict[str, Any] = {
    "zero_stage": 1,
    "checkpoint_every_steps": 2,
    "log_every_steps": 1,
    "max_failures": 12,
}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a head for the driver and two nodes of one CPU for the workers; end what it started."""
    os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"] = "0.5"
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False},
    )
    made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray.init(address=made.address)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        del os.environ["RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S"]


def slow(folder: Path, name: str, pause_s: float, **changes: Any) -> Training:
    arguments = {"dropout": 0.0, "pause_s": pause_s, "log": str(folder.parent / f"ids-{name}")}
    return tiny_training(folder, name, arguments, **{**OPTIONS, **changes})


def trained_bare(training: Training) -> None:
    from corgi.training.loop import train_loop

    train_loop(training)


def curve(training: Training) -> dict[int, float]:
    lines = [json.loads(line) for line in training.metrics_file.read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps)), "a step came twice"
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def assert_same_curve(one: Training, other: Training) -> float:
    left, right = curve(one), curve(other)
    assert left.keys() == right.keys()
    worst = max(abs(left[step] - right[step]) for step in left)
    assert worst < 1e-4
    return worst


def committed(training: Training) -> list[int]:
    found = (training.path / "checkpoints").glob("step-*/COMMITTED.json")
    return sorted(int(path.parent.name[5:14]) for path in found)


def wait_for(ready: Any, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def in_thread(work: Any) -> tuple[threading.Thread, list[BaseException]]:
    problems: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, problems


@pytest.mark.flow
@pytest.mark.timeout(900)
def test_a_drained_node_leaves_a_checkpoint_before_it_goes(
    cluster: Cluster, tmp_path: Path, promise: Any
) -> None:
    training = slow(
        tmp_path / "drained",
        "drained",
        0.4,
        num_workers=1,
        num_steps=60,
        checkpoint_every_steps=1000,
        max_failures=0,
    )
    whole = slow(tmp_path / "whole", "whole", 0.0, num_steps=60)
    seen: list[int] = []

    def drain() -> None:
        wait_for(lambda: training.metrics_file.exists() and len(curve(training)) >= 5)
        node = _worker_node(cluster)
        _drain(node.node_id, deadline_s=25)
        wait_for(lambda: committed(training))
        seen.extend(committed(training))
        time.sleep(1)
        cluster.remove_node(node, allow_graceful=False)

    thread, problems = in_thread(drain)
    train([training], RECIPE)
    thread.join()
    assert problems == []
    assert seen
    assert seen[0] < 60, "no checkpoint was made because of the notice"
    run_workers(trained_bare, 1, whole)
    assert_same_curve(training, whole)
    promise(
        12,
        f"training: a drained node left a checkpoint at step {seen[0]} of 60 (none was due), and the run went on from it",
    )


def _worker_node(cluster: Cluster) -> Any:
    """Return the node whose CPU a Ray Train worker holds."""
    return next(node for node in cluster.list_all_nodes() if not node.head and _free_cpus(node.node_id) == 0)


def _free_cpus(node_id: str) -> float:
    from ray._private.state import available_resources_per_node

    return available_resources_per_node().get(node_id, {}).get("CPU", 0.0)


def _drain(node_id: str, deadline_s: float) -> None:
    import ray._raylet as raylet
    from ray.core.generated import autoscaler_pb2

    messages: Any = autoscaler_pb2
    client: Any = raylet.GcsClient(  # pyright: ignore[reportAttributeAccessIssue]
        address=ray.get_runtime_context().gcs_address
    )
    reason = messages.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node_id, reason, "taken back", int((time.time() + deadline_s) * 1000))
    assert accepted, why


@pytest.mark.flow
@pytest.mark.timeout(900)
def test_ten_restarts_are_one_run_in_every_file(ray_local: None, tmp_path: Path, promise: Any) -> None:
    kills = [3, 7, 8, 12, 15, 19, 22, 24, 27, 29]
    harm = {"kind": "kill", "step": kills, "global_batch": 8, "marker": str(tmp_path / "marker")}
    options: dict[str, Any] = {**OPTIONS, "num_workers": 2, "num_steps": 32}
    killed = tiny_training(
        tmp_path / "killed", "killed", {"fault": harm, "log": str(tmp_path / "ids-killed")}, **options
    )
    killed = dataclasses.replace(killed, tracking=TrackingSettings(mode="offline"))
    whole = tiny_training(tmp_path / "whole", "whole", {"log": str(tmp_path / "ids-whole")}, **options)
    train([killed, whole], RECIPE)
    assert len(list(tmp_path.glob("marker.*.1"))) == len(kills)
    assert final_weights(killed).read_bytes() == final_weights(whole).read_bytes()
    assert killed.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    told = {line for path in tmp_path.glob("ids-killed.*") for line in path.read_text().splitlines()}
    assert told == {line for path in tmp_path.glob("ids-whole.*") for line in path.read_text().splitlines()}
    folders = sorted((killed.path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
    assert all(path.name.endswith(run_id(killed.tracked)) for path in folders)
    await_exit(folders[-1].parents[1], 30)
    steps = [step for path in folders for step in offline_steps(path)]
    expected = sorted(curve(killed))
    assert sorted(set(steps)) == expected, "a step is missing from the W&B run"
    promise(
        16,
        f"{len(kills)} SIGKILLs of a 2-worker Ray run: weights and metrics.jsonl bit-equal to the unbroken run",
    )
    promise(
        34,
        f"{len(folders)} offline folders, one run id, {len(expected)} steps, {len(steps) - len(expected)} sent twice, metrics.jsonl without gap or double",
    )
