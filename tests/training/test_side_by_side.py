"""Room for two worker groups: CPUs and GPUs of both, and one CPU to spare."""

from types import SimpleNamespace
from typing import Any

import pytest

from corgi.settings.training import TrainingSettings
from corgi.training import side_by_side


def recipe(grows: bool = False, wanted: bool = True, **training: Any) -> Any:
    settings = TrainingSettings.model_validate({"num_workers": 2, "cpus_per_worker": 1.5, **training})
    cluster = SimpleNamespace(side_by_side=wanted, grows=grows)
    part = SimpleNamespace(training=settings)
    return SimpleNamespace(cluster=cluster, prior=part, decoder=part)


@pytest.mark.parametrize(("cpus", "room"), [(6.0, False), (7.0, True)])
def test_both_groups_and_one_more_cpu_must_fit(
    monkeypatch: pytest.MonkeyPatch, cpus: float, room: bool
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus})
    assert side_by_side.has_room(recipe()) is room


@pytest.mark.parametrize(("gpus", "room"), [(3.0, False), (4.0, True)])
def test_gpus_are_counted_too(monkeypatch: pytest.MonkeyPatch, gpus: float, room: bool) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 100.0, "GPU": gpus})
    assert side_by_side.has_room(recipe(use_gpu=True)) is room


def test_a_cluster_that_grows_need_not_have_the_room_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
    assert not side_by_side.has_room(recipe(grows=True))  # a Ray of this machine alone never grows
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    assert side_by_side.has_room(recipe(grows=True))


def test_off_means_one_after_the_other_and_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "connect", lambda recipe: pytest.fail("Ray was started"))
    assert side_by_side.environment(recipe(wanted=False)) is None
