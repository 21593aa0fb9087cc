from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.feeding.feed import Feed, Order
from corgi.settings.errors import InputError, SettingsError
from tests.support.tiny_training import TinyRows


def feeds(counts: tuple[int, ...], batch: int, world: int, window: int = 2, seed: int = 1) -> list[Feed]:
    rows = TinyRows(counts, dim=1)
    return [Feed(rows, Order(rows.counts, seed, window), batch, (rank, world)) for rank in range(world)]


def uids(members: list[Feed], step: int) -> list[int]:
    return [uid for feed in members for uid in feed.batch(step).columns["uid"].tolist()]


@pytest.mark.law
@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 13), min_size=1, max_size=7).filter(sum),
    window=st.integers(1, 8),
    share=st.integers(1, 5),
    seed=st.integers(0, 2**63),
)
def test_order_is_each_row_once_an_epoch_whatever_the_workers(
    counts: list[int], window: int, share: int, seed: int
) -> None:
    batch, total = 4 * share, sum(counts)
    steps = -(-3 * total // batch)
    runs = [
        [uid for step in range(steps) for uid in uids(feeds(tuple(counts), batch, world, window, seed), step)]
        for world in (1, 2, 4)
    ]
    assert runs[0] == runs[1] == runs[2]
    for epoch in range(3):
        assert sorted(runs[0][epoch * total : (epoch + 1) * total]) == list(range(total))


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
    assert positions == list(range(28 * batch))
    assert Counter(seen) == Counter(dict.fromkeys(range(112), 2))


def test_one_unit_alone_is_shuffled_and_epochs_differ() -> None:
    order = Order([200], 3, 16)
    epochs = [
        np.concatenate([piece.rows for piece in order.pieces(e * 200, (e + 1) * 200)]) for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(200))
    assert not np.array_equal(epochs[0], epochs[1])
    assert abs(np.corrcoef(epochs[0], np.arange(200))[0, 1]) < 0.3


def test_units_are_permuted_between_epochs() -> None:
    order = Order([3] * 40, 3, 1)
    epochs = [[piece.units for piece in order.pieces(e * 120, (e + 1) * 120)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_columns_stay_together_and_positions_count_the_whole_run() -> None:
    feed = feeds((37, 20), 8, 2)[1]
    batch = feed.batch(10)
    whole = np.concatenate([feed.rows.load(unit)["x"] for unit in range(2)])
    assert torch.equal(batch.columns["x"], torch.from_numpy(whole[batch.columns["uid"].numpy()]))
    assert batch.positions.tolist() == list(range(84, 88))
    parts = batch.split(2)
    assert [part.positions.tolist() for part in parts] == [[84, 85], [86, 87]]
    assert torch.equal(torch.cat([part.columns["uid"] for part in parts]), batch.columns["uid"])


def test_only_the_windows_in_use_are_held_and_nothing_is_read_twice_in_a_window() -> None:
    rows = TinyRows((10,) * 20, dim=1)
    feed = Feed(rows, Order(rows.counts, 1, 2), 5, (0, 1))
    for step in range(40):
        feed.batch(step)
        assert sum(len(window["uid"]) for window in feed._held.values()) <= 40
    assert sorted(rows.loads) == list(range(20))


def test_a_later_step_reads_only_its_own_window() -> None:
    rows = TinyRows((10,) * 20, dim=1)
    Feed(rows, Order(rows.counts, 1, 2), 5, (0, 1)).batch(1000)
    assert len(rows.loads) == 2


def test_what_the_reader_raises_reaches_the_trainer() -> None:
    class Broken(TinyRows):
        def load(self, unit: int) -> dict[str, np.ndarray]:
            raise OSError("the disk is gone")

    rows = Broken((10,))
    with pytest.raises(OSError, match="disk is gone"):
        list(Feed(rows, Order(rows.counts, 1, 2), 5, (0, 1)).batches(0, 3))


def test_a_consumer_that_stops_leaves_no_thread_behind() -> None:
    import threading

    before = threading.active_count()
    batches = feeds((50,), 5, 1)[0].batches(0, 1000)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_wrong_sizes_and_no_rows_are_said() -> None:
    with pytest.raises(InputError, match="no training rows"):
        Order([0, 0], 1, 2)
    with pytest.raises(SettingsError, match="global_batch=3 is less than the 4 workers"):
        feeds((10,), 3, 4)
    rows = TinyRows((10,), dim=1)
    with pytest.raises(InputError, match="11 were announced"):
        Feed(rows, Order([11], 1, 2), 1, (0, 1)).batch(0)
