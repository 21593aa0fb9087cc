"""The whole flow on object storage over a bad network: a host lost in every stage, the head lost, and the job submitted again."""

import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.cluster.conftest import SMALL
from tests.support.hosts import CHECKOUT, SHARED, TMP, Host, open_hosts
from tests.support.ray_hosts import Job, RayHosts, serve_demo
from tests.support.s3_server import BUCKET

STAGES = ("plan", "download", "tower", "embed", "curate", "shift", "prior", "autoencoder", "decoder")
"""In each of them a host is lost. In evaluate the head is, and every worker with it."""
PERCENT_LOST, MBIT_PER_S, DELAY_MS = 2, 50, 20
MAKE_BUCKET = (
    "import os, urllib.request as u; "
    f"u.urlopen(u.Request(os.environ['AWS_ENDPOINT_URL'] + '/{BUCKET}', method='PUT'))"
)


def credentials(address: str, port: str) -> dict[str, str]:
    """Return the environment that leads to the S3 server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHosts]:
    with open_hosts(tmp_path_factory.mktemp("long") / "hosts") as hosts:
        storage = hosts.add("storage")
        server = storage.start(
            "python",
            "-m",
            "tests.support.s3_server",
            storage.address,
            environment={"PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "ignore"},
        )
        assert server.stdout is not None
        environment = credentials(storage.address, server.stdout.readline().strip())
        storage.checked("python", "-c", MAKE_BUCKET, environment=environment)
        cluster = RayHosts(hosts, environment)
        for number in range(3):
            worsen(cluster, cluster.add_worker(f"worker-{number}"))
        yield cluster


def worsen(cluster: RayHosts, host: Host) -> None:
    """Let a host lose packets, narrow its link and, where the kernel can, delay it."""
    cluster.hosts.lose_packets(host, PERCENT_LOST)
    if not cluster.hosts.delay(host, DELAY_MS):
        print(f"no delay of {DELAY_MS} ms: this kernel has no netem")
        cluster.hosts.limit(host, MBIT_PER_S)


def flow(cluster: RayHosts, name: str, job: str, settings: list[str]) -> Job:
    places = (f"root=s3://{BUCKET}/{name}", f"scratch={SHARED}/scratch-{name}")
    return cluster.submit_flow(job, *places, *settings)


def digests(cluster: RayHosts, name: str) -> dict[str, str]:
    command = ("python", "-m", "tests.support.run_digests", f"s3://{BUCKET}/{name}/smoke", f"{TMP}/{name}")
    environment = {**cluster.environment, "PYTHONPATH": str(CHECKOUT)}
    return json.loads(cluster.head.checked(*command, environment=environment).splitlines()[-1])


@pytest.mark.flow
@pytest.mark.timeout(2700)
def test_a_host_lost_in_every_stage_and_then_the_head(
    cluster: RayHosts, promise: Callable[[int, str], None]
) -> None:
    settings = [*serve_demo(cluster, 100), *SMALL]
    flow(cluster, "quiet", "quiet", settings).wait()
    job = flow(cluster, "long", "long-1", settings)
    for number, stage in enumerate(STAGES):
        job.wait_for(lambda stage=stage: f"] {stage}: runs" in job.said(), f"{stage} ran")
        host = cluster.busy("ShardMaker") or cluster.busy("RayTrainWorker") or cluster.workers[0]
        cluster.lose(host)
        worsen(cluster, cluster.add_worker(f"spare-{number}"))
    job.wait_for(lambda: "] evaluate: runs" in job.said(), "evaluate ran")
    for worker in list(cluster.workers):
        cluster.lose(worker)
    cluster.head.lose()
    job.failed()
    cluster.start_head()
    for number in range(3):
        worsen(cluster, cluster.add_worker(f"new-{number}"))
    said = flow(cluster, "long", "long-2", settings).wait()
    done = set(re.findall(r"\] (\w+): done before", said))
    assert done >= set(STAGES)
    assert digests(cluster, "long") == digests(cluster, "quiet")
    promise(
        12,
        f"on S3, {PERCENT_LOST} % of packets lost: a host lost in each of {len(STAGES)} stages, equal to the quiet run",
    )
    promise(
        38,
        f"head and workers lost in evaluate: submitted again, {len(done)} stages done before, equal to the quiet run",
    )
