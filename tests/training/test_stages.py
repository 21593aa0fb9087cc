"""Room for two at once: CPUs and GPUs of both, and one CPU to spare; two worker groups, or the pools of download and embed."""

from types import SimpleNamespace
from typing import Any

import pytest

from corgi.clip.stages import Embed
from corgi.flow import cluster
from corgi.settings.clip import EmbedSettings
from corgi.settings.data import DownloadSettings
from corgi.settings.training import TrainingSettings
from corgi.training.stages import Prior

pytestmark = pytest.mark.slow


def recipe(
    grows: bool = False, wanted: bool = True, kind: str = "linear", has_cascade: bool = False, **training: Any
) -> Any:
    settings = TrainingSettings.model_validate({"num_workers": 2, "cpus_per_worker": 1.5, **training})
    part = SimpleNamespace(training=settings)
    larger = settings.model_copy(update={"num_workers": 4})
    return SimpleNamespace(
        cluster=SimpleNamespace(side_by_side=wanted, grows=grows),
        prior=part,
        decoder=part,
        upsamplers={"upsampler": SimpleNamespace(training=larger)} if has_cascade else {},
        autoencoder=SimpleNamespace(kind=kind, training=larger),
        download=DownloadSettings(num_actors=3, cpus_per_actor=1.0),
        embed=EmbedSettings(
            num_actors=2, cpus_per_actor=1.5, gpus_per_actor=1.0 if settings.use_gpu else 0.0
        ),
    )


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a cluster that was joined."""
    monkeypatch.setattr(cluster, "connect", lambda recipe: None)
    monkeypatch.setattr(cluster, "shared", lambda: {"RAY_ADDRESS": "somewhere:1"})


def fits(recipe: Any) -> bool:
    return Prior().side_by_side(recipe) is not None


@pytest.mark.parametrize(("cpus", "room"), [(6.0, False), (7.0, True)])
def test_both_groups_and_one_more_cpu_must_fit(
    monkeypatch: pytest.MonkeyPatch, cpus: float, room: bool
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus})
    assert fits(recipe()) is room


@pytest.mark.parametrize(("cpus", "room"), [(9.0, False), (10.0, True)])
def test_an_autoencoder_that_is_trained_counts_where_it_is_larger_than_the_decoder(
    monkeypatch: pytest.MonkeyPatch, cpus: float, room: bool
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus})
    assert fits(recipe(kind="kl")) is room


@pytest.mark.parametrize(("cpus", "room"), [(9.0, False), (10.0, True)])
def test_a_step_of_a_cascade_counts_where_it_is_larger_than_the_decoder(
    monkeypatch: pytest.MonkeyPatch, cpus: float, room: bool
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus})
    assert fits(recipe(has_cascade=True)) is room


@pytest.mark.parametrize(("gpus", "room"), [(3.0, False), (4.0, True)])
def test_gpus_are_counted_too(monkeypatch: pytest.MonkeyPatch, gpus: float, room: bool) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 100.0, "GPU": gpus})
    assert fits(recipe(use_gpu=True)) is room


def test_a_cluster_that_grows_need_not_have_the_room_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
    assert not fits(recipe(grows=True))  # a Ray of this machine alone never grows
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    assert fits(recipe(grows=True))


def test_off_means_one_after_the_other_and_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "connect", lambda recipe: pytest.fail("Ray was started"))
    assert Prior().side_by_side(recipe(wanted=False)) is None
    assert Embed().side_by_side(recipe(wanted=False)) is None


@pytest.mark.parametrize(("cpus", "gpus", "room"), [(6.0, 2.0, False), (7.0, 1.0, False), (7.0, 2.0, True)])
def test_embed_follows_where_both_pools_and_one_more_cpu_fit(
    monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float, room: bool
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus, "GPU": gpus})
    assert (Embed().side_by_side(recipe(use_gpu=True)) is not None) is room
