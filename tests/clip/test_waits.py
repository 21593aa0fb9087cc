"""How long a device waits, for what, and which setting would end it."""

from collections.abc import Iterator

import pytest

from corgi.clip import waits as waits_module
from corgi.clip.waits import Waits


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waits_module, "time", made)
    return made


def worked(
    clock: Clock, decoding_s: float, computed_s: float, read_s: float = 0.0, cpu_s: float = 0.0
) -> Waits:
    """Return the waits of a device after two shards of two batches each."""

    def batches() -> Iterator[int]:
        for number in range(2):
            clock.now += decoding_s
            found.spent(cpu_s)
            yield number

    found = Waits()
    for _ in range(2):
        with found.turn():
            for _ in found.decoded(batches()):
                clock.now += computed_s
        clock.now += read_s
    return found


@pytest.mark.law
def test_every_second_of_the_device_is_counted_once(clock: Clock) -> None:
    begun = clock.now
    found = worked(clock, decoding_s=0.5, computed_s=2.0, read_s=3.0)
    assert (found.decoding_s, found.computed_s, found.idle_s) == (2.0, 8.0, 3.0)
    assert found.decoding_s + found.computed_s + found.idle_s == clock.now - 3.0 - begun
    assert found.share == 5 / 13


def test_it_names_the_cpus_that_would_feed_the_device(clock: Clock) -> None:
    starved = worked(clock, decoding_s=3.0, computed_s=1.0, cpu_s=6.5)
    assert starved.told(2) == "the GPU waits 75% for decoded pictures: set embed.cpus_per_actor=7"
    assert starved.told(7) == "the GPU waits 75% for decoded pictures: raise embed.prefetch_batches"


def test_it_says_where_reading_is_the_limit_and_nothing_where_there_is_none(clock: Clock) -> None:
    assert "embed.shards_per_actor" in worked(clock, decoding_s=0.1, computed_s=1.0, read_s=9.0).told(1)
    assert worked(clock, decoding_s=0.01, computed_s=1.0, cpu_s=9.0).told(1) == ""
    assert Waits().told(1) == ""
