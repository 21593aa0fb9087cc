"""The line: bounded, first come first served, equal kinds together, one job's fault its own, places given up."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from corgi.serving.paint_queue import PaintQueue, QueueFullError


class Recorder:
    """Paints words by writing them in capitals; can be held up."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.goes = threading.Event()
        self.goes.set()

    def paint(self, jobs: Sequence[str]) -> list[str]:
        assert self.goes.wait(60)
        self.calls.append(list(jobs))
        if "bad" in jobs:
            raise ValueError("bad")
        return [job.upper() for job in jobs]


def queue_of(recorder: Recorder, **values: int) -> PaintQueue[str, str]:
    return PaintQueue(recorder.paint, kind=lambda job: job[0], size=len, **values)  # pyright: ignore[reportArgumentType]


async def held(recorder: Recorder, queue: PaintQueue[str, str], *jobs: str) -> list[asyncio.Task[str]]:
    """Return tasks of jobs in line, the first of them being painted."""
    recorder.goes.clear()
    tasks = []
    for job in jobs:
        tasks.append(asyncio.create_task(queue.submit(job, ticket=job)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks


def test_first_come_first_served_and_equal_kinds_together():
    recorder = Recorder()

    async def run() -> list[str]:
        queue = queue_of(recorder)
        tasks = await held(recorder, queue, "x", "a1", "b1", "a2")
        assert [queue.position(name) for name in ("x", "a1", "b1", "a2", "z")] == [0, 1, 2, 3, None]
        recorder.goes.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(run()) == ["X", "A1", "B1", "A2"]
    assert recorder.calls == [["x"], ["a1", "a2"], ["b1"]]


def test_no_more_pictures_together_than_allowed():
    recorder = Recorder()

    async def run() -> None:
        queue = queue_of(recorder, max_together=4)
        tasks = await held(recorder, queue, "x", "a1", "a2", "a3")
        recorder.goes.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert recorder.calls == [["x"], ["a1", "a2"], ["a3"]]


def test_a_full_line_refuses_and_has_room_again():
    recorder = Recorder()

    async def run() -> str:
        queue = queue_of(recorder, max_waiting=2)
        tasks = await held(recorder, queue, "x", "a", "b")
        with pytest.raises(QueueFullError) as refused:
            await queue.submit("c")
        assert refused.value.wait_s > 0
        recorder.goes.set()
        await asyncio.gather(*tasks)
        return await queue.submit("c")

    assert asyncio.run(run()) == "C"


def test_ten_thousand_requests_are_answered_or_refused_and_none_is_kept():
    recorder = Recorder()

    async def run() -> tuple[int, int]:
        queue = queue_of(recorder, max_waiting=32)
        recorder.goes.clear()
        tasks = [asyncio.create_task(queue.submit(f"a{number}")) for number in range(10_000)]
        await asyncio.sleep(0.1)
        assert len(queue) <= 32
        recorder.goes.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(queue) == 0
        refused = [result for result in results if isinstance(result, QueueFullError)]
        return len(refused), len(results) - len(refused)

    refused, answered = asyncio.run(run())
    assert (refused + answered, answered <= 34, answered >= 32) == (10_000, True, True)


def test_one_jobs_fault_is_its_own():
    recorder = Recorder()

    async def run() -> list[object]:
        queue = queue_of(recorder)
        tasks = await held(recorder, queue, "x", "b1", "bad", "b2")
        recorder.goes.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    first, before, bad, after = asyncio.run(run())
    assert (first, before, after) == ("X", "B1", "B2")
    assert isinstance(bad, ValueError)


def test_a_caller_that_is_gone_gives_its_place_up_and_the_line_goes_on():
    recorder = Recorder()

    async def run() -> None:
        queue = queue_of(recorder)
        painted, gone, last = await held(recorder, queue, "x", "a", "b")
        for task in (painted, gone):
            task.cancel()
        await asyncio.sleep(0.05)
        assert (len(queue), queue.position("b")) == (1, 1)
        recorder.goes.set()
        assert await last == "B"

    asyncio.run(run())
    assert recorder.calls == [["x"], ["b"]]
