"""Each worker's batches: the rows of its share of every global batch, prefetched by threads."""

import queue
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from corgi.feeding.order import Order
from corgi.settings.errors import InputError, SettingsError

_LOADERS = 4
_AHEAD = 2
"""Number of batches that are prefetched."""


class Rows(Protocol):
    """The training rows, divided into units that are read whole: row groups or shards."""

    @property
    def counts(self) -> Sequence[int]:
        """Return the number of rows of each unit."""
        ...

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return every row of a unit; the first axis of each array counts rows.

        A column of lists of different lengths is an object array [rows] or [rows, slots] of arrays [length, width].
        """
        ...


@runtime_checkable
class Decoding(Protocol):
    """Rows that are kept in memory as stored, and decoded when a batch is made."""

    def decoded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return columns of some rows, decoded for a batch."""
        ...


def tensors(rows: Rows, columns: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return columns of some of the rows as tensors for a batch: decoded, with lists padded."""
    ready = rows.decoded(columns) if isinstance(rows, Decoding) else columns
    return {name: torch.from_numpy(dense(values)) for name, values in ready.items()}


@dataclass(frozen=True)
class Batch:
    """A rank's rows of one global batch: arrays by column, and each row's position in the whole run."""

    step: int
    positions: Int[Tensor, "batch"]
    columns: dict[str, Tensor]

    def split(self, num_parts: int) -> list["Batch"]:
        """Return the micro-batches in order; their sizes differ by one row at most."""
        rows = len(self.positions)
        cuts = [slice(i * rows // num_parts, (i + 1) * rows // num_parts) for i in range(num_parts)]
        return [Batch(self.step, self.positions[c], {k: v[c] for k, v in self.columns.items()}) for c in cuts]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its columns on a device."""
        return Batch(
            self.step, self.positions, {k: v.to(device, non_blocking=True) for k, v in self.columns.items()}
        )


def dense(values: np.ndarray) -> np.ndarray:
    """Return a column as one array; lists are padded with zeros to the longest list.

    [rows] of lists become [rows, longest, width], and [rows, slots] of lists [rows, slots in use, longest, width].
    """
    if values.dtype != object:
        return np.ascontiguousarray(values)
    if values.ndim == 1:
        return dense(values[:, None])[:, 0]
    lengths = np.array([[len(cell) for cell in row] for row in values])
    slots = int(np.flatnonzero(lengths.sum(axis=0)).max(initial=0)) + 1
    first = values[0, 0]
    filled = np.zeros((len(values), slots, int(lengths.max(initial=1)), first.shape[1]), first.dtype)
    for row, slot in zip(*lengths[:, :slots].nonzero(), strict=True):
        filled[row, slot, : lengths[row, slot]] = values[row, slot]
    return filled


def first_rows(rows: Rows, limit: int) -> dict[str, np.ndarray]:
    """Return all rows of the first units that together have at least `limit` rows, or of all units; empty without rows."""
    units, num_rows = [], 0
    for unit, count in enumerate(rows.counts):
        if count and num_rows < limit:
            units.append(rows.load(unit))
            num_rows += count
    return {name: joined([unit[name] for unit in units]) for name in units[0]} if units else {}


def rows_between(rows: Rows, wanted: range) -> dict[str, np.ndarray]:
    """Return the rows `wanted`, numbered over all units in order; units without any of them are not read. Empty without rows."""
    counts = np.asarray(rows.counts, np.int64)
    ends = np.cumsum(counts)
    begins = ends - counts
    units = np.flatnonzero((counts > 0) & (ends > wanted.start) & (begins < wanted.stop)) if wanted else ()
    parts = []
    for unit in map(int, units):
        part = slice(max(wanted.start - int(begins[unit]), 0), wanted.stop - int(begins[unit]))
        parts.append({name: values[part] for name, values in rows.load(unit).items()})
    return {name: joined([part[name] for part in parts]) for name in parts[0]} if parts else {}


class Feed:
    """Yields one worker's batches from a given step on.

    A unit stays in memory while a lane of this worker needs it for its current or its next window.
    """

    def __init__(
        self, rows: Rows, order: Order, global_batch: int, worker: tuple[int, int], pin: bool = False
    ) -> None:
        """Take the rows, their order and this worker, (rank, world size); `pin` puts batches in pinned memory, from which a GPU copies while it computes.

        Raises:
            SettingsError: there are more workers than rows in a global batch.

        """
        self.rank, self.world_size = worker
        if global_batch < self.world_size:
            raise SettingsError(
                f"global_batch={global_batch} is less than the {self.world_size} workers; committed work is safe; change training.num_workers"
            )
        self.rows = rows
        self.order = order
        self.global_batch = global_batch
        self.pin = pin
        self._loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="feed-loader")
        self._units: dict[int, Future[dict[str, np.ndarray]]] = {}
        self._stop = threading.Event()

    def batch(self, step: int) -> Batch:
        """Return this worker's rows of global batch `step`, counted from 0, by lane; shares differ by one row at most."""
        positions = self.order.share(step, self.global_batch, self.rank, self.world_size)
        units, rows = self.order.rows_at(positions)
        self._look_ahead(self.order.units_ahead(positions))
        columns = tensors(self.rows, self._gathered(units, rows))
        if self.pin:
            columns = {name: values.pin_memory() for name, values in columns.items()}
        return Batch(step, torch.from_numpy(positions), columns)

    def batches(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield the batches of steps [first_step, last_step); an error of the reading thread is raised here."""
        ahead: queue.Queue[Batch | BaseException] = queue.Queue(_AHEAD)
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
        """Release the rows in memory and end the loader threads."""
        self._loaders.shutdown(wait=True, cancel_futures=True)
        self._units.clear()

    def _read(self, ahead: "queue.Queue[Batch | BaseException]", first_step: int, last_step: int) -> None:
        try:
            for step in range(first_step, last_step):
                if not self._put(ahead, self.batch(step)):
                    return
        except BaseException as error:  # the consumer raises it: raised in this thread, nobody would see it
            self._put(ahead, error)

    def _put(self, ahead: "queue.Queue[Batch | BaseException]", item: Batch | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                ahead.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _look_ahead(self, wanted: Sequence[int]) -> None:
        """Release the units that neither the current nor the next windows need, and start to load the others, most urgent first."""
        for unit in self._units.keys() - set(wanted):
            self._units.pop(unit).cancel()
        for unit in wanted:
            if unit not in self._units:
                self._units[unit] = self._loaders.submit(self._load, unit)

    def _load(self, unit: int) -> dict[str, np.ndarray]:
        loaded, expected = self.rows.load(unit), int(self.order.counts[unit])
        sizes = {name: len(values) for name, values in loaded.items() if len(values) != expected}
        if sizes:
            raise InputError(
                f"unit {unit} has {sizes} rows, but {expected} were expected; committed work is safe; run the same command again"
            )
        return loaded

    def _gathered(
        self, units: Int[np.ndarray, "rows"], rows: Int[np.ndarray, "rows"]
    ) -> dict[str, np.ndarray]:
        """Return the rows of each column in the order of `units` and `rows`."""
        distinct = np.unique(units)
        loaded = [self._units[int(unit)].result() for unit in distinct]
        at = np.argsort(units, kind="stable")
        parts = [rows[units == unit] for unit in distinct]
        back = np.empty_like(at)
        back[at] = np.arange(len(at))
        return {
            name: joined([unit[name][own] for unit, own in zip(loaded, parts, strict=True)])[back]
            for name in loaded[0]
        }


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return rows of several units one after another; missing slots are padded with zeros or empty lists."""
    slots = [part.shape[1:2] for part in parts]
    if len(set(slots)) == 1:
        return np.concatenate(parts)
    most = max(slot[0] for slot in slots)
    return np.concatenate([_widened(part, most) for part in parts])


def _widened(part: np.ndarray, slots: int) -> np.ndarray:
    wide = np.zeros((len(part), slots, *part.shape[2:]), part.dtype)
    if part.dtype == object:
        empty = part[0, 0][:0]
        for cell in np.ndindex(wide.shape):
            wide[cell] = empty
    wide[:, : part.shape[1]] = part
    return wide
