"""Curate on clusters of several nodes, with a killed worker and a killed node: the same selections, byte for byte."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from corgi.curation import judge, near_hashes
from corgi.curation.exchange import exchanged
from tests.curation.test_planted import ALL, CAP, curated

SETTINGS = {**ALL, "max_domain_share": CAP, "placeholder_min_urls": 5, "parts": 5}


@contextmanager
def cluster(num_nodes: int) -> Iterator[Cluster]:
    """Yield a head without CPUs and nodes of one CPU; results are stored on nodes however small they are."""
    config = {"max_direct_call_object_size": 16}
    head = {"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    ray.shutdown()  # a Ray that tests before these have left on
    made = Cluster(initialize_head=True, head_node_args={**head, "_system_config": config})
    try:
        for _ in range(num_nodes):
            made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=made.address)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def digests(root: Path, on_ray: bool = True) -> list[str]:
    made, _ = curated(root, on_ray=on_ray, **SETTINGS)
    return [shard.digest for shard in made.run.shards("curate")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return digests(tmp_path_factory.mktemp("here"), on_ray=False)


@pytest.mark.parametrize("num_nodes", [2, 4])
def test_law_the_number_of_nodes_changes_nothing(tmp_path: Path, expected: list[str], num_nodes: int) -> None:
    with cluster(num_nodes):
        assert digests(tmp_path) == expected


def nodes_of(made: Cluster) -> list[Any]:
    """Return the nodes without the head."""
    return list(made.worker_nodes)


def workers() -> list[psutil.Process]:
    """Return the processes that execute calls; a node ends with its agents, so these are left alone."""
    found = psutil.Process(os.getpid()).children(recursive=True)
    named = [(process, process.name()) for process in found]
    agents = ("ray::Dashboard", "ray::RuntimeEnv")
    return [process for process, name in named if name.startswith("ray::") and not name.startswith(agents)]


def after_exchanges(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]) -> None:
    """Call `fault` with the number of each exchange of rows once its pieces are made."""
    count = iter(range(10**6))

    def watched(*arguments: object) -> list[list[object]]:
        found = exchanged(*arguments)  # type: ignore[arg-type]
        fault(next(count))
        return found

    for module in (judge, near_hashes):
        monkeypatch.setattr(module, "exchanged", watched)


def test_law_a_killed_node_changes_nothing(tmp_path, monkeypatch, expected: list[str]) -> None:
    with cluster(3) as made:
        lost: list[int] = []

        def lose(number: int) -> None:
            if number in (0, 3):
                made.remove_node(nodes_of(made)[-1], allow_graceful=False)
                made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
                lost.append(number)

        after_exchanges(monkeypatch, lose)
        assert digests(tmp_path) == expected
        assert lost == [0, 3]


def test_law_killed_workers_change_nothing(tmp_path, monkeypatch, expected: list[str]) -> None:
    with cluster(2):
        killed: list[int] = []

        def kill(number: int) -> None:
            for worker in workers() if number in (0, 2, 4) else ():
                worker.kill()
                killed.append(worker.pid)

        after_exchanges(monkeypatch, kill)
        assert digests(tmp_path) == expected
        assert killed
