"""Nodes follow the flow on a real autoscaler: none, as many as are asked for, none; GPU nodes only for stages that ask for GPUs."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.autoscaling import SOURCES, FakeCloud, Sample, idle_share
from tests.support.hosts import CHECKOUT, TMP, open_hosts

RAN = re.compile(r"^\[ *([\d.]+) s\] (\w+): runs", re.MULTILINE)
SAMPLES = CHECKOUT / ".promises" / "autoscaling.samples"
"""What the last run of this test saw; `python -m tests.support.autoscaling plot` draws it."""
START_S = 90.0
"""Longest time a fake node takes to start on a busy machine, and its idle timeout."""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    with open_hosts(tmp_path / "hosts") as hosts:
        yield FakeCloud(hosts.add("cloud"))


def until(holds: Callable[[], object], what: str, seconds: float = START_S) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.5)


@pytest.mark.flow
@pytest.mark.timeout(400)
def test_a_driver_that_lives_on_after_its_pool_keeps_no_node(
    cloud: FakeCloud, promise: Callable[[int, str], None]
) -> None:
    """The shape of ray#56576: a head without CPUs, 0 to 3 nodes, Ray Data, and a driver that does not end."""
    assert cloud.num_nodes() == 0
    command = ("python", "-m", "tests.support.pool_then_wait", f"{TMP}/pool", "8", "4")
    driver = cloud.host.start(*command, environment={**SOURCES, "RAY_ADDRESS": cloud.address})
    until(lambda: cloud.num_nodes() == 2, "four actors of one CPU ask for two nodes of two")
    assert driver.stdout is not None
    while (line := driver.stdout.readline()) != "made\n":
        assert line, f"the driver ended with {driver.wait()}"
    until(lambda: cloud.num_nodes() == 0, "the nodes are given back while the driver lives")
    assert driver.poll() is None
    assert driver.stdin is not None
    driver.stdin.close()
    assert driver.wait() == 0
    assert max(sample.nodes() for sample in cloud.samples()) == 2
    promise(40, "the shape of ray#56576: 0, 2, 0 nodes, the driver alive")


@pytest.mark.flow
@pytest.mark.timeout(900)
def test_nodes_follow_the_flow_and_gpu_nodes_only_stages_that_ask(
    cloud: FakeCloud, promise: Callable[[int, str], None]
) -> None:
    command = ("python", "pipelines/demo.py", "--pictures", "60", "--work", f"{TMP}/site")
    settings = (
        *("--recipe", "pipelines/recipes/smoke.yaml", f"root={TMP}/runs", "cluster.grows=true"),
        *(f"cluster.file={TMP}/fake.yaml", "cluster.side_by_side=false", "plan.number_sample_per_shard=24"),
        *("download.num_actors=4", "embed.gpus_per_actor=1", "tower.training.num_steps=10"),
        *("evaluate.steps=[2]", "evaluate.judge=null"),
    )
    environment = {**SOURCES, "RAY_ADDRESS": cloud.address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
    begun = time.time()
    done = cloud.host.run(*command, *settings, folder=CHECKOUT, environment=environment, timeout_s=800)
    assert done.returncode == 0, done.stdout[-6000:]
    until(lambda: cloud.num_nodes() == 0, "every node is given back")
    samples = cloud.samples()
    stages = {name: begun + float(at) for at, name in RAN.findall(done.stdout)}
    assert samples[0].nodes() == 0
    assert max(sample.nodes("cpu-data") for sample in samples) >= 2
    assert gpu_nodes(samples, stages["embed"], stages["curate"]) == 1
    assert gpu_nodes(samples, begun, stages["embed"]) == 0, "CPU work started a GPU node"
    later = stages["curate"] + START_S / 3
    assert gpu_nodes(samples, later, samples[-1].at) == 0, (
        "an idle GPU node was kept, or CPU work started one"
    )
    SAMPLES.parent.mkdir(exist_ok=True)
    SAMPLES.write_text(json.dumps({"samples": [vars(sample) for sample in samples], "stages": stages}))
    most = max(sample.nodes() for sample in samples)
    promise(
        40,
        f"the whole flow: 0 to {most} nodes and back to 0; a GPU node for embed only; {idle_share(samples):.2f} idle node-seconds per useful one with idle timeouts of 10 s and 6 s",
    )


def gpu_nodes(samples: list[Sample], start: float, end: float) -> int:
    """Return the largest number of GPU nodes between two times."""
    return max((s.nodes("gpu-spot") for s in samples if start <= s.at < end), default=0)
