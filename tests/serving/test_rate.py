"""Requests per address: any burst up to the limit, then one per interval, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from corgi.serving import rate
from corgi.serving.rate import Rate


@given(per_minute=st.integers(1, 100), gaps_s=st.lists(st.floats(0, 5), max_size=200))
def test_law_no_window_lets_more_pass_than_burst_and_rate(per_minute, gaps_s):
    now = [0.0]
    bucket = Rate(per_minute, clock=lambda: now[0])
    passed = []
    for gap in gaps_s:
        now[0] += gap
        if bucket.wait_s("a") == 0:
            passed.append(now[0])
    for start in passed:
        within = [time for time in passed if start <= time <= start + 60]
        assert len(within) <= 2 * per_minute + 1


def test_who_waits_as_told_passes_and_others_are_not_held_up():
    now = [0.0]
    bucket = Rate(2, clock=lambda: now[0])
    assert [bucket.wait_s("a") for _ in range(2)] == [0, 0]
    wait = bucket.wait_s("a")
    assert 0 < wait <= 30
    assert bucket.wait_s("b") == 0
    now[0] += wait
    assert bucket.wait_s("a") == 0


def test_zero_is_no_limit():
    assert {Rate(0).wait_s("a") for _ in range(1000)} == {0}


def test_addresses_are_forgotten_so_that_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(rate, "MAX_ADDRESSES", 10)
    bucket = Rate(1, clock=lambda: 0.0)
    for number in range(1000):
        bucket.wait_s(str(number))
    assert bucket.wait_s("999") > 0  # the newest is remembered
    assert bucket.wait_s("0") == 0
