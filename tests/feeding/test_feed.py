import threading
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from corgi.feeding.feed import Feed, dense, joined, rows_between
from corgi.feeding.order import Order
from corgi.settings.errors import InputError, SettingsError
from tests.support.tiny_training import TinyRows


def feeds(counts: tuple[int, ...], batch: int, world: int, window: int = 2, lanes: int = 4) -> list[Feed]:
    rows = TinyRows(counts, dim=1)
    return [Feed(rows, Order(rows.counts, 1, lanes, window), batch, (rank, world)) for rank in range(world)]


@pytest.mark.law
def test_restarts_at_any_step_and_world_size_neither_skip_nor_repeat() -> None:
    counts, batch = (37, 20, 51, 4), 8
    seen: list[int] = []
    positions: list[int] = []
    restarts = [(0, 5, 1), (5, 6, 2), (6, 17, 4), (17, 28, 2)]
    for first, last, world in restarts:
        read = [list(feed.batches(first, last)) for feed in feeds(counts, batch, world)]
        for parts in zip(*read, strict=True):
            seen += [uid for part in parts for uid in part.columns["uid"].tolist()]
            positions += [p for part in parts for p in part.positions.tolist()]
    assert sorted(positions) == list(range(28 * batch))
    assert Counter(seen) == Counter(dict.fromkeys(range(112), 2))


def test_columns_stay_together_and_positions_count_the_whole_run() -> None:
    feed = feeds((37, 20), 8, 2)[1]
    batch = feed.batch(10)
    whole = np.concatenate([feed.rows.load(unit)["x"] for unit in range(2)])
    assert torch.equal(batch.columns["x"], torch.from_numpy(whole[batch.columns["uid"].numpy()]))
    assert batch.positions.tolist() == [
        83,
        87,
        80,
        84,
    ]  # of 80..87, which begin in the second epoch, by lane: those of the last two
    parts = batch.split(2)
    assert [part.positions.tolist() for part in parts] == [[83, 87], [80, 84]]
    assert torch.equal(torch.cat([part.columns["uid"] for part in parts]), batch.columns["uid"])


@pytest.mark.law
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_worker_holds_two_windows_per_lane_and_reads_nothing_twice(world: int) -> None:
    """Windows of one unit: a lane holds the one it reads and the next; lanes share at most the unit at their border."""
    batch, lanes, units = 8, 4, 40
    for rank in range(world):
        rows = TinyRows((10,) * units, dim=1)
        feed = Feed(rows, Order(rows.counts, 1, lanes, lanes), batch, (rank, world))
        for step in range((units - 2 * lanes) * 10 // batch):  # nothing of the next epoch is read yet
            feed.batch(step)
            assert len(feed._units) <= 2 * (lanes // world) + 2
        loads = rows.loads
        assert len(loads) == len(set(loads))
        assert len(loads) <= units // world + 2 * (lanes // world) + 2
        feed.close()


def test_a_later_step_reads_only_its_own_windows() -> None:
    rows = TinyRows((10,) * 20, dim=1)
    feed = Feed(rows, Order(rows.counts, 1, 1, 1), 5, (0, 1))
    feed.batch(1000)
    feed.close()
    assert len(rows.loads) <= 4


def test_slots_that_a_unit_lacks_are_padded() -> None:
    few, many = np.ones((2, 1, 3)), np.ones((1, 4, 3))
    found = joined([few, many])
    assert found.shape == (3, 4, 3)
    assert found.sum() == 2 * 3 + 4 * 3
    words = np.empty((1, 1), dtype=object)
    words[0, 0] = np.ones((2, 5), np.float16)
    more = np.empty((1, 2), dtype=object)
    more[0, 0], more[0, 1] = np.ones((3, 5), np.float16), np.ones((1, 5), np.float16)
    assert dense(joined([words, more])).shape == (2, 2, 3, 5)


def test_what_the_reader_raises_reaches_the_trainer() -> None:
    class Broken(TinyRows):
        def load(self, unit: int) -> dict[str, np.ndarray]:
            raise OSError("the disk is gone")

    rows = Broken((10,))
    with pytest.raises(OSError, match="disk is gone"):
        list(Feed(rows, Order(rows.counts, 1, 1, 2), 5, (0, 1)).batches(0, 3))


def test_a_consumer_that_stops_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    [feed] = feeds((50,), 5, 1)
    batches = feed.batches(0, 1000)
    next(batches)
    batches.close()
    feed.close()
    assert set(threading.enumerate()) <= before


def test_wrong_sizes_are_said() -> None:
    with pytest.raises(SettingsError, match="global_batch=3 is less than the 4 workers"):
        feeds((10,), 3, 4)
    rows = TinyRows((10,), dim=1)
    with pytest.raises(InputError, match="11 were expected"):
        Feed(rows, Order([11], 1, 1, 2), 1, (0, 1)).batch(0)


@pytest.mark.law
@pytest.mark.parametrize(
    "cuts", [(0, 112), (0, 37, 112), (0, 5, 5, 40, 56, 57, 108, 112), (3, 4), (112, 130), (130, 140)]
)
def test_rows_between_are_those_of_the_whole_and_other_units_are_not_read(cuts: tuple[int, ...]) -> None:
    rows = TinyRows((37, 0, 20, 51, 4), dim=1)
    ends = np.cumsum(rows.counts)
    for first, last in pairwise(cuts):
        rows.loads.clear()
        found = rows_between(rows, range(first, last)).get("uid", np.zeros(0))
        wanted = np.arange(first, min(last, 112)) if first < 112 else np.zeros(0)
        assert found.tolist() == wanted.tolist()
        assert rows.loads == sorted({int(np.searchsorted(ends, uid, side="right")) for uid in wanted})
