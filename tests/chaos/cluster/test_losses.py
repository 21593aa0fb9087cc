"""The whole flow on three hosts that are lost and cut off on the way: it ends, and what it made equals the quiet run."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hosts import SHARED, Host
from tests.support.ray_hosts import Job, RayHosts, title
from tests.support.run_digests import digests

LOSSES = (("download", "ShardMaker"), ("embed", "ShardMaker"), ("prior", "RayTrainWorker"))
"""In which stages a host is lost, and the title of the processes that do the stage's work."""
CUT_S = 60.0


def committed(store: Path, stage: str) -> int:
    """Return how many commits a stage has: shards, or the checkpoints of its trainings."""
    shards = [path for path in store.glob(f"{stage}/*/manifest-0.json") if path.parent.parent.name == stage]
    return len(shards) + len(list(store.glob(f"{stage}/*/work/*/checkpoints/*/COMMITTED.json")))


def is_closed(store: Path, stage: str) -> bool:
    return any(store.glob(f"{stage}/closed/*/manifest-0.json"))


def at_work(cluster: RayHosts, job: Job, stage: str, work: str, ready: Callable[[], object]) -> Host:
    """Return a worker that does a stage's work, once `ready()` holds."""
    found: list[Host] = []

    def seen() -> bool:
        host = cluster.busy(work) if ready() else None
        found.extend([host] if host else [])
        return host is not None

    job.wait_for(seen, f"{stage} was at work")
    return found[0]


@pytest.mark.flow
@pytest.mark.timeout(1100)
def test_hosts_lost_and_cut_off_change_nothing(
    cluster: RayHosts, settings: list[str], quiet: Path, promise: Callable[[int, str], None]
) -> None:
    begun = time.monotonic()
    job = cluster.submit_flow("lossy", f"root={SHARED}/lossy", *settings)
    store = cluster.shared / "lossy" / "store"
    for number, (stage, work) in enumerate(LOSSES):
        host = at_work(cluster, job, stage, work, lambda stage=stage: committed(store, stage))
        cluster.lose(host)
        assert not is_closed(store, stage), f"{stage} had ended before its host was lost"
        cluster.add_worker(f"spare-{number}")
    host = at_work(cluster, job, "decoder", "RayTrainWorker", lambda: is_closed(store, "autoencoder"))
    cluster.hosts.cut(host)
    time.sleep(CUT_S)
    cluster.hosts.mend(host)
    job.wait()
    assert digests(cluster.shared / "lossy" / "smoke") == digests(quiet)
    came_back(cluster, host)
    seconds = time.monotonic() - begun
    promise(
        12,
        f"3 hosts lost in download, embed and prior of the whole flow: equal to the quiet run, {seconds:.0f} s",
    )
    promise(
        37,
        f"a host cut off {CUT_S:.0f} s in the decoder's training: equal to the quiet run, and the host is back",
    )


def came_back(cluster: RayHosts, host: Host) -> None:
    """Assert that a host's Ray is part of the cluster again: it never left, or has ended and joins anew."""
    end = time.monotonic() + 120
    while alive(cluster) < len(cluster.workers) + 1:
        if not any("raylet/raylet" in title(pid) for pid in host.processes()):
            cluster.join(host)
        assert time.monotonic() < end, "the host did not come back"
        time.sleep(1)


def alive(cluster: RayHosts) -> int:
    """Return the number of nodes that the head counts as alive."""
    text = "import ray; ray.init(log_to_driver=False); print('alive', sum(n['Alive'] for n in ray.nodes()))"
    told = cluster.head.checked(
        "python", "-c", text, environment={"RAY_AUTH_MODE": "token", "RAY_ADDRESS": "head:6379"}
    )
    return int(told.rpartition("alive ")[2].split()[0])
