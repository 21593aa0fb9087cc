"""What a run waits for is counted by what it needs, with the time since when, and gone when the run has ended."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corgi.flow import waiting


def state() -> Any:
    """Return a cluster's state with three tasks and a gang of two GPU workers waiting."""
    from ray.core.generated import autoscaler_pb2

    messages: Any = autoscaler_pb2
    found = messages.ClusterResourceState()
    for need, count in (({"CPU": 1.0}, 2), ({"CPU": 1.0, "memory": 5.0}, 1)):
        entry = found.pending_resource_requests.add()
        entry.count = count
        for kind, amount in need.items():
            entry.request.resources_bundle[kind] = amount
    gang = found.pending_gang_resource_requests.add()
    for _ in range(2):
        request = gang.requests.add()
        request.resources_bundle["CPU"], request.resources_bundle["GPU"] = 4.0, 1.0
    return found


def test_requests_are_counted_by_what_they_need() -> None:
    assert waiting.requests_of(state()) == Counter({"1 CPU": 3, "4 CPU and 1 GPU": 2})


def test_a_note_tells_what_is_waited_for_and_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def looked() -> Counter[str]:
        seen.extend(waiting.lines(tmp_path))
        return Counter({"1 GPU": 3})

    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(waiting, "SHORTEST_S", 0.0)
    monkeypatch.setattr(waiting, "pending", looked)
    with waiting.noted(tmp_path):
        while len(seen) < 2:
            time.sleep(0.01)
    assert seen[0].startswith("waits for nodes: 3 x 1 GPU, since 20")
    assert len(set(seen)) == 1, "the time is that of the first look"
    assert not list(waiting.lines(tmp_path)), "a run that has ended waits for nothing"


def test_work_that_waits_for_a_moment_is_a_queue_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(waiting, "pending", lambda: looks.append(1) or Counter({"1 CPU": 9}))
    with waiting.noted(tmp_path):
        while len(looks) < 3:
            time.sleep(0.01)
        assert json.loads((tmp_path / waiting.NAME).read_text()) == {}


def test_without_a_cluster_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert waiting.pending() is None
