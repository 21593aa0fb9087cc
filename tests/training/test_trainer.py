"""Ray Train's driver: what is refused before a start, and which errors restart nothing (met by two workers: `test_loop.py`). A killed worker: tests/flows/test_killed_worker.py."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from corgi.settings.errors import ClusterError, CorgiError, InputError, StorageError
from corgi.settings.recipe import Recipe
from corgi.training.trainer import Job, set_unless_given, train, train_worker
from tests.support.tiny_training import tiny_training

pytestmark = pytest.mark.timeout(600)

RECIPE = Recipe(name="tests")


def test_too_many_workers_for_this_machine_are_refused_at_once(ray_local: None, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"needs 64 CPUs for 64 workers.*lower .*cpus_per_worker"):
        train([tiny_training(tmp_path, num_workers=64, global_batch=64)], RECIPE)
    with pytest.raises(ClusterError, match=r"needs 1 GPUs for 1 workers, but Ray has 0.*use_gpu=false"):
        train([tiny_training(tmp_path, num_workers=1, use_gpu=True)], RECIPE)


def test_what_one_training_told_ray_train_does_not_bind_the_next_but_the_users_word_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, str] = {}
    monkeypatch.setenv("CORGI_TESTS_A", "")
    del os.environ["CORGI_TESTS_A"]
    monkeypatch.setenv("CORGI_TESTS_B", "7")
    for value in (60, 600):
        set_unless_given("CORGI_TESTS_A", value, told)
        set_unless_given("CORGI_TESTS_B", value, told)
        assert os.environ["CORGI_TESTS_A"] == str(value)
        assert os.environ["CORGI_TESTS_B"] == "7"


@pytest.mark.parametrize(
    ("error", "workers", "is_noted", "is_raised"),
    [
        (StorageError("gone; safe; again", may_pass=True), 1, False, True),
        (StorageError("full; safe; make room"), 1, True, False),
        (InputError("bad; safe; give another"), 1, True, False),
        (InputError("bad; safe; give another"), 2, True, True),
    ],
)
def test_errors_of_the_user_restart_nothing_unless_another_worker_waits_for_this_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: CorgiError,
    workers: int,
    is_noted: bool,
    is_raised: bool,
) -> None:
    """What is raised restarts the group; what is noted ends a restarted one at once."""

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("corgi.training.loop.train_loop", fails)
    monkeypatch.setattr(logging.getLogger("ray.train"), "setLevel", lambda level: None)
    monkeypatch.setattr("corgi.training.ranks.world_size", lambda: workers)
    monkeypatch.setattr("corgi.training.trainer.ALL_ENDED_S", 0.0)
    failure = tmp_path / "failure.json"
    with pytest.raises(type(error)) if is_raised else nullcontext():
        train_worker({"job": Job((tiny_training(tmp_path),), str(failure))})
    assert failure.exists() == is_noted
