"""Requests wait in one queue for the one thread that paints: bounded, first come first served, with equal settings painted together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """Too many requests are waiting; `wait_s` is an estimate of the seconds until there is room."""

    def __init__(self, wait_s: float) -> None:
        """Take the seconds to wait."""
        super().__init__(f"the queue is full for about {wait_s:.0f} s")
        self.wait_s = wait_s


@dataclass(eq=False)
class _Place(Generic[Job, Result]):
    job: Job
    done: "asyncio.Future[Result]"
    ticket: str | None


@dataclass
class PaintQueue(Generic[Job, Result]):
    """The queue. All methods must be called in the thread of the event loop; `paint` runs in a separate thread."""

    paint: Callable[[Sequence[Job]], Sequence[Result]]
    kind: Callable[[Job], Hashable]
    """Jobs of equal kind may be painted together."""
    size: Callable[[Job], int]
    """Returns the number of pictures of a job."""
    max_waiting: int = 32
    max_together: int = 16
    """Largest number of pictures painted at once."""
    _waiting: deque[_Place[Job, Result]] = field(default_factory=deque)
    _painted: list[_Place[Job, Result]] = field(default_factory=list)
    _worker: asyncio.Task[None] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "painter"))
    seconds_per_job: float = 1.0
    """Moving average over recent jobs."""

    def __len__(self) -> int:
        """Return how many jobs are waiting."""
        return len(self._waiting)

    async def submit(self, job: Job, ticket: str | None = None) -> Result:
        """Wait in the queue and return the job's result; a caller that is cancelled leaves the queue.

        Raises:
            QueueFullError: too many jobs are waiting.
            Exception: what `paint` raised for this job.

        """
        if len(self._waiting) >= self.max_waiting:
            raise QueueFullError(self.seconds_per_job * len(self._waiting))
        place = _Place[Job, Result](job, asyncio.get_running_loop().create_future(), ticket)
        self._waiting.append(place)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await place.done
        finally:
            if place in self._waiting:
                self._waiting.remove(place)

    def position(self, ticket: str) -> int | None:
        """Return the position of the job with a ticket: 0 while it is painted, from 1 on while it waits, None if it is not in the queue."""
        if any(place.ticket == ticket for place in self._painted):
            return 0
        return next((number for number, place in enumerate(self._waiting, 1) if place.ticket == ticket), None)

    def close(self) -> None:
        """Cancel the waiting jobs, and paint no more."""
        for place in self._waiting:
            place.done.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self._waiting:
            self._painted = self._next()
            started = time.monotonic()
            await self._finish(self._painted)
            took = (time.monotonic() - started) / len(self._painted)
            self.seconds_per_job = 0.8 * self.seconds_per_job + 0.2 * took
            self._painted = []

    def _next(self) -> list[_Place[Job, Result]]:
        """Take the first job and those of its kind behind it that fit in the batch, which delays no other job."""
        first = self._waiting.popleft()
        taken, pictures = [first], self.size(first.job)
        for place in list(self._waiting):
            if (
                self.kind(place.job) == self.kind(first.job)
                and pictures + self.size(place.job) <= self.max_together
            ):
                self._waiting.remove(place)
                taken.append(place)
                pictures += self.size(place.job)
        return taken

    async def _finish(self, places: Sequence[_Place[Job, Result]]) -> None:
        """Paint jobs together; if that fails, paint each separately, so that a faulty job fails alone."""
        try:
            results = await self._in_thread([place.job for place in places])
        except Exception as error:
            if len(places) == 1:
                _settle(places[0], error=error)
                return
            for place in places:
                await self._finish([place])
            return
        for place, result in zip(places, results, strict=True):
            _settle(place, result)

    async def _in_thread(self, jobs: Sequence[Job]) -> Sequence[Result]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.paint, jobs)


def _settle(place: _Place[Job, Result], result: Result | None = None, error: Exception | None = None) -> None:
    """Set a job's result or error, if its caller is still waiting."""
    if place.done.done():
        return
    if error is not None:
        place.done.set_exception(error)
    else:
        place.done.set_result(result)  # pyright: ignore[reportArgumentType]
