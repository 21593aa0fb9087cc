"""How long a GPU waits for pictures while it embeds, and how many CPUs would feed it."""

import math
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")
WORTH_TELLING = 0.05
"""A GPU that waits for a smaller share of its time is not reported."""


class Waits:
    """How one device spends its time: several shards take turns on it; while one is computed, others are read and written."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.computed_s = self.idle_s = self.decoding_s = self.decode_cpu_s = 0.0
        """Seconds of turns without waiting; seconds between turns; seconds of waiting for decoded pictures within turns; CPU-seconds of decoding."""
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._released: float | None = None

    @contextmanager
    def turn(self) -> Generator[None]:
        """Reserve the device for one shard while the block runs."""
        with self._turn:
            begun, before = time.perf_counter(), self.decoding_s
            if self._released is not None:
                self.idle_s += begun - self._released
            try:
                yield
            finally:
                self._released = time.perf_counter()
                self.computed_s += self._released - begun - (self.decoding_s - before)

    def decoded(self, batches: Iterable[_Item]) -> Iterator[_Item]:
        """Yield batches within a turn, and count the time of waiting for each."""
        begun = time.perf_counter()
        for batch in batches:
            self.decoding_s += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()

    def spent(self, cpu_s: float) -> None:
        """Count CPU-seconds of decoding, from any thread."""
        with self._lock:
            self.decode_cpu_s += cpu_s

    @property
    def share(self) -> float:
        """Return the share of its time for which the device waited."""
        waited = self.idle_s + self.decoding_s
        return waited / (waited + self.computed_s) if waited else 0.0

    def told(self, cpus: float) -> str:
        """Return what to change for an actor with that number of CPUs; empty if its GPU hardly waits."""
        if self.share < WORTH_TELLING:
            return ""
        found = f"the GPU waits {self.share:.0%}"
        if self.idle_s > self.decoding_s:
            return f"{found}, mostly for shards to be read and written: raise embed.shards_per_actor, or use faster storage"
        needed = math.ceil(self.decode_cpu_s / self.computed_s) if self.computed_s else 0
        if needed <= cpus:
            return f"{found} for decoded pictures: raise embed.prefetch_batches"
        return f"{found} for decoded pictures: set embed.cpus_per_actor={needed}"
