"""Laws of the order over rows, units, lanes, batches, workers and restarts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.feeding.order import MAX_LANES, Order, lanes_for
from corgi.settings.errors import InputError
from corgi.settings.training import TrainingSettings

COUNTS = st.lists(st.integers(0, 7), min_size=1, max_size=7).filter(sum)
Row = tuple[int, int, int]


def rows_of(order: Order, step: int, batch: int, rank: int, world: int) -> list[Row]:
    positions = order.share(step, batch, rank, world)
    return list(zip(positions.tolist(), *(found.tolist() for found in order.rows_at(positions)), strict=True))


@pytest.mark.law
@settings(max_examples=30)
@given(
    counts=COUNTS,
    lanes=st.integers(1, 24),
    window=st.integers(1, 8),
    batch=st.integers(3, 30),
    worlds=st.lists(st.integers(1, 30), min_size=1, max_size=2),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_row_once_an_epoch_and_the_same_batches_at_any_number_of_workers(
    counts: list[int], lanes: int, window: int, batch: int, worlds: list[int], seed: int
) -> None:
    order, total = Order(counts, seed, lanes, window), sum(counts)
    steps = -(-2 * total // batch)
    alone = [rows_of(order, step, batch, 0, 1) for step in range(steps)]
    assert sorted(p for rows in alone for p, _, _ in rows) == list(range(steps * batch))
    everything = sorted((unit, row) for unit, count in enumerate(counts) for row in range(count))
    flat = [row for rows in alone for row in rows]
    for epoch in range(2):
        assert sorted(row[1:] for row in flat if row[0] // total == epoch) == everything
    for world in (min(world, batch) for world in worlds):
        fresh = Order(counts, seed, lanes, window)
        for step in reversed(range(steps)):  # a step needs nothing of those before it
            shares = [rows_of(fresh, step, batch, rank, world) for rank in range(world)]
            assert [row for share in shares for row in share] == alone[step]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.law
@settings(max_examples=20)
@given(counts=COUNTS, lanes=st.integers(1, 24), window=st.integers(1, 8), seed=st.integers(0, 2**63))
def test_units_ahead_are_those_of_the_rows_and_of_the_lanes_next_window(
    counts: list[int], lanes: int, window: int, seed: int
) -> None:
    order, total = Order(counts, seed, lanes, window), sum(counts)
    for position in range(2 * total):
        one = np.array([position])
        ahead = order.units_ahead(one)
        assert int(order.rows_at(one)[0][0]) in ahead
        later = position + lanes * order.window_rows
        if later // total == position // total:
            assert int(order.rows_at(np.array([later]))[0][0]) in ahead
        assert all(counts[unit] for unit in ahead)


def test_64_workers_read_40000_units_hardly_more_than_once() -> None:
    """Units read by every eighth worker over its share of them, within an epoch; 512 lanes as in corgi.yaml."""
    units, batch, world = 40_000, 4096, 64
    order = Order([20] * units, 7, 512, 512)
    read = 0
    for rank in range(0, world, 8):
        shares = [order.share(step, batch, rank, world) for step in range(units * 20 // batch)]
        read += len(np.unique(order.rows_at(np.concatenate(shares))[0]))
    assert read / (units / 8) <= 1.05


def test_rows_are_shuffled_within_windows_and_epochs_differ() -> None:
    order = Order([200], 3, 1, 16)
    epochs = [order.rows_at(np.arange(e * 200, (e + 1) * 200))[1] for e in range(2)]
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist()) == list(range(200))
    assert not np.array_equal(epochs[0], epochs[1])
    assert abs(np.corrcoef(epochs[0], np.arange(200))[0, 1]) < 0.3


def test_units_are_permuted_between_epochs() -> None:
    order = Order([3] * 40, 3, 1, 1)
    epochs = [order.rows_at(np.arange(e * 120, (e + 1) * 120))[0].tolist() for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("batch", "lanes"), [(1, 1), (64, 64), (96, 48), (97, 1), (4096, 64), (122, 61)])
def test_lanes_are_the_largest_divisor_of_the_batch(batch: int, lanes: int) -> None:
    assert lanes_for(batch, None) == lanes <= MAX_LANES
    assert lanes_for(batch, batch) == batch


def test_lanes_that_do_not_divide_the_batch_are_refused() -> None:
    assert TrainingSettings(global_batch=4096, lanes=512).lanes == 512
    with pytest.raises(ValueError, match="lanes 48 must divide global_batch 256, or be null"):
        TrainingSettings(global_batch=256, lanes=48)


def test_no_rows_are_said() -> None:
    with pytest.raises(InputError, match="no training rows"):
        Order([0, 0], 1, 1, 2)
