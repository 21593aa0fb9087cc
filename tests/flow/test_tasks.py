"""Calls on workers: arguments by result, many results of one call, a killed worker, one line for what a call refuses."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from corgi.flow import cluster
from corgi.flow.tasks import Tasks, value_of, values_of, wait_for
from corgi.settings.errors import InputError


def halves(values: np.ndarray, number: int) -> list[np.ndarray]:
    return np.array_split(values, number)


def copied(values: np.ndarray) -> np.ndarray:
    return values.copy()


def added(*parts: np.ndarray) -> int:
    return int(sum(part.sum() for part in parts))


def added_later(refs: list[object]) -> int:
    return added(*(value_of(ref) for ref in refs))


def dying_once(mark: str) -> str:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def refusing() -> None:
    raise InputError("the rows are odd; nothing is lost; hand in even ones")


def laws() -> None:
    calls, values = Tasks(), np.arange(100)
    for number in (1, 3):
        parts = calls.start_each(halves, number, calls.start(copied, values), number)
        assert len(parts) == number
        wait_for(parts, "halves")
        assert values_of([calls.start(added, *parts), calls.start(added_later, parts)], "sums") == [
            4950,
            4950,
        ]


@pytest.mark.usefixtures("in_process")
def test_law_calls_in_this_process_give_their_values() -> None:
    laws()
    with pytest.raises(InputError, match="odd"):
        Tasks().start(refusing)


@pytest.mark.usefixtures("ray_local")
def test_calls_of_workers_give_the_same_a_killed_one_is_made_again_and_a_refusal_is_one_line(
    tmp_path,
) -> None:
    laws()
    assert value_of(Tasks(memory=2**20).start(dying_once, str(tmp_path / "mark"))) == "done"
    with pytest.raises(Exception, match="odd") as raised:
        value_of(Tasks().start(added, Tasks().start(refusing)))
    known = cluster.cause(raised.value)
    assert isinstance(known, InputError)
    assert "\n" not in str(known)
