"""The order of the training rows, fixed by (seed, epoch), and each worker's slice of it.

The canonical order is the concatenation of the epochs. An epoch permutes the units, cuts them into windows of
`shuffle_window` units, and permutes the rows of each window. Global batch b is rows [bB, (b+1)B) of that order and a
rank takes its contiguous share, so the run is the same at any number of workers, and going on at step n needs
nothing but n.
"""

import queue
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from corgi.settings.errors import InputError, SettingsError

_UNITS, _ROWS = 0, 1
_ORDER = 3  # the word of the counter that keeps the order's bits apart from the noise's


class Rows(Protocol):
    """The training rows, cut into units that are read whole: row groups or shards."""

    @property
    def counts(self) -> Sequence[int]:
        """Return the number of rows of each unit."""
        ...

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return every row of a unit; the first axis of each array counts rows.

        A column of lists of different lengths is an object array [rows, slots] of arrays [length, width].
        """
        ...


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of the order inside one window: the window's units, ascending, and rows of their concatenation."""

    units: tuple[int, ...]
    rows: Int[np.ndarray, "rows"]


class Order:
    """The canonical order of rows held in units of known sizes."""

    def __init__(self, counts: Sequence[int], seed: int, shuffle_window: int) -> None:
        """Take the rows of each unit; empty units are passed over.

        Raises:
            InputError: there is no row.

        """
        self.counts = np.asarray(counts, np.int64)
        self.num_rows = int(self.counts.sum())
        if self.num_rows == 0:
            raise InputError(
                "there are no training rows; committed work is safe; check the split, the selection and the list"
            )
        self.seed = seed
        self.window = shuffle_window
        self._windows = lru_cache(maxsize=4)(self._epoch_windows)
        self._shuffled = lru_cache(maxsize=4)(self._window_rows)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Yield the rows at positions [start, stop) of the whole run, in order, one piece a window touched."""
        while start < stop:
            epoch, offset = divmod(start, self.num_rows)
            windows, ends = self._windows(epoch)
            index = int(np.searchsorted(ends, offset, side="right"))
            first = int(ends[index - 1]) if index else 0
            last = min(int(ends[index]), offset + stop - start)
            yield Piece(windows[index], self._shuffled(epoch, index)[offset - first : last - first])
            start += last - offset

    def _epoch_windows(self, epoch: int) -> tuple[list[tuple[int, ...]], Int[np.ndarray, "windows"]]:
        filled = np.flatnonzero(self.counts)
        order = filled[self._permutation(len(filled), _UNITS, epoch, 0)]
        windows = [
            tuple(sorted(order[i : i + self.window].tolist())) for i in range(0, len(order), self.window)
        ]
        return windows, np.cumsum([self.counts[list(units)].sum() for units in windows])

    def _window_rows(self, epoch: int, index: int) -> Int[np.ndarray, "rows"]:
        windows, _ = self._windows(epoch)
        return self._permutation(int(self.counts[list(windows[index])].sum()), _ROWS, epoch, index)

    def _permutation(self, size: int, kind: int, epoch: int, index: int) -> Int[np.ndarray, "size"]:
        bits = np.random.Philox(
            key=np.array([self.seed % 2**64, kind], np.uint64),
            counter=np.array([0, epoch, index, _ORDER], np.uint64),
        )
        return np.random.Generator(bits).permutation(size)


@dataclass(frozen=True)
class Batch:
    """A rank's rows of one global batch: arrays by column, and each row's position in the whole run."""

    step: int
    positions: Int[Tensor, "batch"]
    columns: dict[str, Tensor]

    def split(self, num_parts: int) -> list["Batch"]:
        """Return the micro-batches in order, their sizes one row apart at most."""
        rows = len(self.positions)
        cuts = [slice(i * rows // num_parts, (i + 1) * rows // num_parts) for i in range(num_parts)]
        return [Batch(self.step, self.positions[c], {k: v[c] for k, v in self.columns.items()}) for c in cuts]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its columns on a device."""
        return Batch(
            self.step, self.positions, {k: v.to(device, non_blocking=True) for k, v in self.columns.items()}
        )


def dense(values: np.ndarray) -> np.ndarray:
    """Return a column as one array; lists are padded with zeros to the longest of these rows, [rows, slots in use, longest, width]."""
    if values.dtype != object:
        return np.ascontiguousarray(values)
    lengths = np.array([[len(cell) for cell in row] for row in values])
    slots = int(np.flatnonzero(lengths.sum(axis=0)).max(initial=0)) + 1
    first = values[0, 0]
    filled = np.zeros((len(values), slots, int(lengths.max(initial=1)), first.shape[1]), first.dtype)
    for row, slot in zip(*lengths[:, :slots].nonzero(), strict=True):
        filled[row, slot, : lengths[row, slot]] = values[row, slot]
    return filled


def first_rows(rows: Rows, limit: int) -> dict[str, np.ndarray]:
    """Return the rows of the first units that hold `limit` rows, or of all; empty without rows."""
    units, found = [], 0
    for unit, count in enumerate(rows.counts):
        if count and found < limit:
            units.append(rows.load(unit))
            found += count
    return {name: np.concatenate([unit[name] for unit in units]) for name in units[0]} if units else {}


class Feed:
    """Yields one rank's batches from a step on, read ahead by a thread; holds two windows of rows at most."""

    def __init__(
        self, rows: Rows, order: Order, global_batch: int, place: tuple[int, int], num_ahead: int = 2
    ) -> None:
        """Take the rows, their order and this worker's place, (rank, world size).

        Raises:
            SettingsError: there are more workers than rows in a global batch.

        """
        self.rank, self.world_size = place
        if global_batch < self.world_size:
            raise SettingsError(
                f"training.global_batch={global_batch} is less than the {self.world_size} workers; committed work is safe; change training.num_workers"
            )
        self.rows = rows
        self.order = order
        self.global_batch = global_batch
        self.num_ahead = num_ahead
        self._held: OrderedDict[tuple[int, ...], dict[str, np.ndarray]] = OrderedDict()
        self._stop = threading.Event()

    def batch(self, step: int) -> Batch:
        """Return this rank's rows of global batch `step`, counted from 0; shares are one row apart at most."""
        first = step * self.global_batch
        start, stop = (first + (self.rank + i) * self.global_batch // self.world_size for i in (0, 1))
        found = [(self._window(piece.units), piece.rows) for piece in self.order.pieces(start, stop)]
        columns = {
            name: np.concatenate([window[name][rows] for window, rows in found]) for name in found[0][0]
        }
        tensors = {name: torch.from_numpy(dense(values)) for name, values in columns.items()}
        return Batch(step, torch.arange(start, stop), tensors)

    def batches(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield the batches of steps [first_step, last_step); what the reader raised is raised here."""
        ahead: queue.Queue[Batch | BaseException] = queue.Queue(self.num_ahead)
        thread = threading.Thread(
            target=self._read, args=(ahead, first_step, last_step), name="feed", daemon=True
        )
        thread.start()
        try:
            for _ in range(first_step, last_step):
                item = ahead.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stop.set()
            thread.join(timeout=10)
            self._stop.clear()

    def close(self) -> None:
        """Let go of the rows held."""
        self._held.clear()

    def _read(self, ahead: "queue.Queue[Batch | BaseException]", first_step: int, last_step: int) -> None:
        try:
            for step in range(first_step, last_step):
                if not self._put(ahead, self.batch(step)):
                    return
        except BaseException as error:  # the consumer raises it: a thread's own traceback would reach nobody
            self._put(ahead, error)

    def _put(self, ahead: "queue.Queue[Batch | BaseException]", item: Batch | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                ahead.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _window(self, units: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return a window's rows, its units concatenated; the two windows used last are kept."""
        if units in self._held:
            self._held.move_to_end(units)
            return self._held[units]
        while len(self._held) >= 2:
            self._held.popitem(last=False)
        loaded = [self.rows.load(unit) for unit in units]
        window = {
            name: np.concatenate([part[name] for part in loaded]) if len(loaded) > 1 else loaded[0][name]
            for name in loaded[0]
        }
        expected = int(self.order.counts[list(units)].sum())
        sizes = {name: len(values) for name, values in window.items() if len(values) != expected}
        if sizes:
            raise InputError(
                f"units {units} hold {sizes} rows, {expected} were announced; committed work is safe; run the same command again"
            )
        self._held[units] = window
        return window
