"""One cluster of three hosts for these suites, and the run to which nothing happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import SHARED
from tests.support.ray_hosts import RayHosts, ray_hosts, serve_demo

SMALL = (
    "plan.number_sample_per_shard=24",
    "plan.test_share=0.3",
    "download.num_actors=2",
    "embed.num_actors=2",
    "cluster.side_by_side=false",
    "tower.training.num_steps=10",
    "evaluate.steps=[2]",
    "evaluate.judge=null",
)
"""The smoke recipe with more and smaller shards, so that a stage is still at work when a host goes, and a shorter tower."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHosts]:
    with ray_hosts(tmp_path_factory.mktemp("cluster") / "hosts") as started:
        yield started


@pytest.fixture(scope="session")
def settings(cluster: RayHosts) -> list[str]:
    """Return what every run of the recipe is given besides its root."""
    return [*serve_demo(cluster, 100), *SMALL]


@pytest.fixture(scope="session")
def quiet(cluster: RayHosts, settings: list[str]) -> Path:
    """Run the flow once and return the run's folder on this machine."""
    cluster.submit_flow("quiet", f"root={SHARED}/quiet", *settings).wait()
    return cluster.shared / "quiet" / "smoke"
