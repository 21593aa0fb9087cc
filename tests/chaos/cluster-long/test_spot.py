"""A spot notice on a host of its own: watcher, drained node, checkpoint before the machine goes, and the training goes on."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hosts import CHECKOUT, SHARED, Host
from tests.support.ray_hosts import TOKEN, Job, RayHosts, ray_hosts
from tests.support.slow_training import NUM_STEPS, slow_training
from tests.support.workers import run_workers

SOURCES = {"PYTHONPATH": str(CHECKOUT)}
NOTICE_S = {"aws": 120.0, "gcp": 30.0}
"""How long before it takes a machine a cloud says so."""
GOES_S = 30.0
"""The notice of both here. A node that is lost before the time in its notice counts as failed, not as preempted."""


def losses(folder: Path) -> dict[int, float]:
    """Return the loss of every step of a training, each told once."""
    path = slow_training(folder, 0.0).metrics_file
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps)), "a step came twice"
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def saved(folder: Path) -> list[int]:
    """Return the steps of the training's committed checkpoints."""
    found = (slow_training(folder, 0.0).path / "checkpoints").glob("step-*/COMMITTED.json")
    return sorted(int(path.parent.name[5:14]) for path in found)


def watched(host: Host, cloud: str) -> subprocess.Popen[str]:
    """Start a cloud's metadata server and the watcher on a host; a line to the server's input gives notice."""
    server = host.start(
        "python", "-m", "tests.support.metadata_server", cloud, f"{GOES_S:.0f}", environment=SOURCES
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), url
    with (host.tmp / "spot_watcher.log").open("w") as log:
        command = ("python", "-m", "corgi.flow.spot_watcher", cloud, "--metadata-server", url)
        host.start(*command, environment={**SOURCES, **TOKEN}, output=log)
    return server


def give_notice(server: subprocess.Popen[str]) -> float:
    assert server.stdin is not None
    server.stdin.write("now\n")
    server.stdin.flush()
    return time.monotonic()


def trained_bare(folder: str) -> None:
    from corgi.training.loop import train_loop

    train_loop(slow_training(Path(folder), 0.0))


@pytest.mark.flow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("cloud", ["gcp", "aws"])
def test_a_notice_becomes_a_checkpoint_before_the_machine_goes(
    cloud: str, tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    with ray_hosts(tmp_path / "hosts", num_workers=0) as cluster:
        folder = cluster.shared / "spot"
        spot = cluster.add_worker("spot", "ray.io/market-type=spot")
        server = watched(spot, cloud)
        job = cluster.submit("spot", "python", "-m", "tests.support.slow_training", f"{SHARED}/spot")
        job.wait_for(lambda: len(losses(folder)) >= 3, "three steps")
        cluster.add_worker("spare")
        seconds = noticed(cluster, job, spot, server, folder)
        [step] = saved(folder)
        job.wait()
        told = (spot.tmp / "spot_watcher.log").read_text()
        assert told.count("notice: the machine goes in") == 1
        found = losses(folder)
    whole = tmp_path / "whole"
    run_workers(trained_bare, 2, str(whole))
    assert found.keys() == losses(whole).keys()
    assert step < NUM_STEPS
    assert max(abs(loss - losses(whole)[at]) for at, loss in found.items()) < 1e-4
    promise(
        36,
        f"{cloud}: {seconds:.0f} s from the notice to the checkpoint at step {step} of {NUM_STEPS} (none was due), of the {NOTICE_S[cloud]:.0f} s that the cloud gives; the training went on elsewhere",
    )


def noticed(cluster: RayHosts, job: Job, spot: Host, server: subprocess.Popen[str], folder: Path) -> float:
    """Give notice, wait for the checkpoint, take the machine away in time; return the seconds from notice to checkpoint."""
    assert saved(folder) == []
    given = give_notice(server)
    job.wait_for(lambda: saved(folder), "a checkpoint")
    seconds = time.monotonic() - given
    assert seconds < GOES_S, "the machine would have gone before the checkpoint"
    time.sleep(given + GOES_S + 1.0 - time.monotonic())
    cluster.lose(spot)
    return seconds
