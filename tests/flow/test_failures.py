"""One line for many failed shards: by cause, bounded, with the advice of an error in settings or input first."""

import pytest

from corgi.flow.failures import Failure, explained, lost, tried
from corgi.settings.errors import ClusterError, InputError, SettingsError, StorageError
from corgi.tables.store import ShardTask
from tests.support.commit_script import task

AWAY = "d is away; all is safe; mount it"


def failure(shard: int, kind: str = "StorageError", message: str = AWAY) -> Failure:
    return Failure(f"{shard:05d}", kind, message)


def test_the_line_is_bounded_however_many_shards_and_causes():
    told = [failure(n) for n in range(500)] + [failure(n, "KeyError", f"k{n}\nmore") for n in range(500, 900)]
    line = str(explained("embed", told, 40_000))
    assert len(line) < 1_000
    assert "\n" not in line
    assert line.startswith("embed: 900 of 40000 shards could not be made: 00000, 00001")
    assert "and 492 more (d is away)" in line
    assert "KeyError: k500 more" in line
    assert line.count("; ") == 2


@pytest.mark.parametrize("kind", [SettingsError, InputError, StorageError, ClusterError])
def test_a_stage_of_one_shard_ends_with_the_error_as_it_was_raised(kind):
    found = explained("evaluate", [failure(0, kind.__name__)], 1)
    assert (type(found), str(found)) == (kind, AWAY)


def test_a_worker_that_is_lost_each_time_is_a_fault_of_the_cluster():
    found = explained("embed", [lost("00003", 3)], 9)
    assert isinstance(found, ClusterError)
    assert "00003 (a worker was lost 3 times with the shard it made" in str(found)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (InputError("a; b; c"), 1),
        (SettingsError("a; b; c"), 1),
        (KeyError("x"), 3),
        (StorageError("a; b; c"), 3),
    ],
)
def test_settings_and_input_are_tried_once_and_all_else_as_often_as_asked(error, tries):
    calls: list[ShardTask] = []

    def make(one: ShardTask):
        calls.append(one)
        raise error

    found = tried(make, task("/nowhere", 1), 3, wait_s=0.0)
    assert isinstance(found, Failure)
    assert (len(calls), found.shard, found.kind) == (tries, "00001", type(error).__name__)


def test_interrupts_are_not_caught():
    def make(one: ShardTask):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tried(make, task("/nowhere", 1), 3)
