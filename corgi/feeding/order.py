"""The order of the training rows: a function of only (seed, epoch, lanes), divided among any number of workers.

An epoch permutes the units and concatenates their rows. Lane l of L is rows [l N / L, (l + 1) N / L) of that sequence; the
lanes' lengths differ by one row at most. A lane is cut into windows of consecutive rows, and each window is permuted.
Position q of an epoch is row q // L of lane q % L, longer lanes first, so that [0, N) is a bijection. Global batch b is
positions [bB, (b + 1)B) of the concatenated epochs. Sorted by lane, it is cut into one share per worker: a worker reads the
units of its own lanes, the run is the same with any number of workers, and resuming at step n needs only n.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from corgi.settings.errors import InputError

_UNITS, _ROWS = 0, 1
_ORDER = 3  # counter word that separates the order's bits from other draws of the same seed
MAX_LANES = 64
"""Maximum number of lanes if the recipe does not set their number."""


def lanes_for(global_batch: int, lanes: int | None) -> int:
    """Return the number of lanes: the setting, else the largest divisor of the global batch up to `MAX_LANES`."""
    if lanes is not None:
        return lanes
    return max(number for number in range(1, MAX_LANES + 1) if global_batch % number == 0)


class WindowKey(NamedTuple):
    """Identifies a window of a lane."""

    epoch: int
    lane: int
    number: int


class Window(NamedTuple):
    """The rows of a window in their order."""

    units: Int[np.ndarray, "rows"]
    rows: Int[np.ndarray, "rows"]
    """Each row's index in its unit."""


class _Epoch(NamedTuple):
    """One permutation of the units."""

    units: Int[np.ndarray, "units"]
    ends: Int[np.ndarray, "units"]
    """Rows up to the end of each unit."""
    begins: Int[np.ndarray, "units"]
    """Rows before each unit."""
    starts: Int[np.ndarray, "lanes"]
    """First row of each lane, longer lanes first."""
    lengths: Int[np.ndarray, "lanes"]


class Order:
    """The canonical order of rows in units of known sizes."""

    def __init__(self, counts: Sequence[int], seed: int, lanes: int, shuffle_window: int) -> None:
        """Take the number of rows of each unit; empty units are skipped.

        The windows of all lanes together have as many rows as `shuffle_window` units of mean size.

        Raises:
            InputError: there is no row.

        """
        self.counts = np.asarray(counts, np.int64)
        self.num_rows = int(self.counts.sum())
        if self.num_rows == 0:
            raise InputError(
                "there are no training rows; committed work is safe; check the split, the selection and the list"
            )
        self.seed, self.lanes = seed, lanes
        shuffled = shuffle_window * self.num_rows / np.count_nonzero(self.counts)
        self.window_rows = max(1, round(shuffled / lanes))
        self._epoch = lru_cache(maxsize=3)(self._make_epoch)
        self._lane_windows = -(-self.num_rows // lanes // self.window_rows) + 1
        self.window = lru_cache(maxsize=4 * lanes)(self._make_window)
        self._units = lru_cache(maxsize=4 * lanes)(self._make_units)

    def share(self, step: int, global_batch: int, rank: int, world_size: int) -> Int[np.ndarray, "rows"]:
        """Return the positions of a worker's rows of a global batch, by lane; shares differ by one row at most."""
        batch = np.arange(step * global_batch, (step + 1) * global_batch)
        by_lane = batch[np.lexsort((batch, batch % self.num_rows % self.lanes))]
        return by_lane[rank * global_batch // world_size : (rank + 1) * global_batch // world_size]

    def rows_at(
        self, positions: Int[np.ndarray, "rows"]
    ) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
        """Return the unit of each position of the run, and the row's index in that unit."""
        units, rows = np.empty_like(positions), np.empty_like(positions)
        for key, where, offset in self._windows_at(positions):
            window = self.window(key)
            units[where], rows[where] = window.units[offset], window.rows[offset]
        return units, rows

    def units_ahead(self, positions: Int[np.ndarray, "rows"]) -> list[int]:
        """Return the units of the windows that contain the positions, then those of the next windows, each unit once."""
        codes, _ = self._codes(positions)
        keys = [self._key(code) for code in np.unique(codes).tolist()]
        following = [self._next(key) for key in keys]
        return list(dict.fromkeys(unit for key in (*keys, *following) for unit in self._units(key)))

    def _windows_at(
        self, positions: Int[np.ndarray, "rows"]
    ) -> list[tuple[WindowKey, Int[np.ndarray, "some"], Int[np.ndarray, "some"]]]:
        """Return each window that contains some of the positions, with the indices of these positions and their offsets in the window."""
        codes, offset = self._codes(positions)
        distinct, which = np.unique(codes, return_inverse=True)
        members = [np.flatnonzero(which == number) for number in range(len(distinct))]
        return [
            (self._key(code), where, offset[where])
            for code, where in zip(distinct.tolist(), members, strict=True)
        ]

    def _codes(
        self, positions: Int[np.ndarray, "rows"]
    ) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
        """Return the window of each position as one number, and the position's offset in it."""
        epoch, inside = np.divmod(positions, self.num_rows)
        row, lane = np.divmod(inside, self.lanes)
        index, offset = np.divmod(row, self.window_rows)
        return (epoch * self.lanes + lane) * self._lane_windows + index, offset

    def _key(self, code: int) -> WindowKey:
        lane, index = divmod(code, self._lane_windows)
        return WindowKey(*divmod(lane, self.lanes), index)

    def _next(self, key: WindowKey) -> WindowKey:
        """Return the window that a lane reads after `key`: the next one of the epoch, or the first of the next epoch."""
        later = key._replace(number=key.number + 1)
        exists = later.number * self.window_rows < self._epoch(key.epoch).lengths[key.lane]
        return later if exists else WindowKey(key.epoch + 1, key.lane, 0)

    def _make_units(self, key: WindowKey) -> list[int]:
        """Return the units that contain a window's rows."""
        first, last = self._span(key)
        epoch = self._epoch(key.epoch)
        bounds = np.searchsorted(epoch.ends, [first, max(first, last - 1)], side="right")
        return epoch.units[bounds[0] : bounds[1] + 1].tolist() if last > first else []

    def _span(self, key: WindowKey) -> tuple[int, int]:
        """Return the first and last + 1 row of a window in the epoch's sequence of rows."""
        epoch = self._epoch(key.epoch)
        start, length = int(epoch.starts[key.lane]), int(epoch.lengths[key.lane])
        first, last = (min(index * self.window_rows, length) for index in (key.number, key.number + 1))
        return start + first, start + last

    def _make_epoch(self, number: int) -> _Epoch:
        filled = np.flatnonzero(self.counts)
        units = filled[self._permutation(len(filled), _UNITS, (0, number, 0))]
        cuts = np.arange(self.lanes + 1) * self.num_rows // self.lanes
        lengths = np.diff(cuts)
        longer_first = np.argsort(-lengths, kind="stable")
        ends = np.cumsum(self.counts[units])
        return _Epoch(units, ends, ends - self.counts[units], cuts[:-1][longer_first], lengths[longer_first])

    def _make_window(self, key: WindowKey) -> Window:
        first, last = self._span(key)
        epoch = self._epoch(key.epoch)
        row = first + self._permutation(last - first, _ROWS, (key.lane, key.epoch, key.number))
        which = np.searchsorted(epoch.ends, row, side="right")
        return Window(epoch.units[which], row - epoch.begins[which])

    def _permutation(self, size: int, kind: int, words: tuple[int, int, int]) -> Int[np.ndarray, "size"]:
        bits = np.random.Philox(
            key=np.array([self.seed % 2**64, kind], np.uint64), counter=np.array([*words, _ORDER], np.uint64)
        )
        return np.random.Generator(bits).permutation(size)
