"""Work in a thread: one piece at a time, in order, and its error comes out in the thread that asked for it."""

import threading

import pytest

from corgi.training.background import Background
from tests.support.waiting import PATIENCE_S


def test_one_piece_after_the_other() -> None:
    background, done = Background(), list[int]()
    first = threading.Event()

    def slow() -> None:
        assert first.wait(PATIENCE_S)
        done.append(1)

    background.begin(slow)
    background.check()
    threading.Timer(0.05, first.set).start()
    background.begin(lambda: done.append(2))
    background.wait()
    assert done == [1, 2]
    background.wait()


def test_an_error_is_raised_once_by_the_next_call() -> None:
    background = Background()
    background.begin(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.check()
    background.begin(lambda: None)
    background.wait()


def test_on_the_way_out_an_error_is_told_and_a_stuck_thread_left(caplog: pytest.LogCaptureFixture) -> None:
    background, stuck = Background(), threading.Event()
    background.begin(lambda: 1 / 0)
    assert background.close(PATIENCE_S)
    assert "division by zero" in caplog.text
    other = Background()
    other.begin(lambda: stuck.wait(PATIENCE_S))
    assert not other.close(0.01)
    assert "still being written" in caplog.text
    stuck.set()
