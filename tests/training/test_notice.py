"""When workers look for a notice and when a checkpoint is due; with two workers: tests/training/test_loop.py."""

import pytest

from corgi.training.notice import Agreement


def test_alone_the_clock_of_this_worker_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("corgi.training.notice.time.monotonic", lambda: now[0])
    agreement = Agreement(60.0, 5.0)
    assert agreement.next() == (False, False)
    now[0] = 6.0
    assert agreement.next() == (False, True)
    assert agreement.next() == (False, False)
    now[0] = 61.0
    assert agreement.next() == (True, True)
    assert agreement.next() == (True, False)
    agreement.saved()
    assert agreement.next() == (False, False)
    never = Agreement(0.0, 5.0)
    now[0] = 10_000.0
    assert never.next() == (False, True)
