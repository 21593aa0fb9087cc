"""Bounded child processes that decode: a crash, a hang or a memory bomb costs exactly one image.

Children come from a fork server that has loaded only the decoders, so that starting one takes milliseconds even inside a
Ray worker, whose main module would otherwise be imported by every child. Waiting bodies are sent in batches; if a child
dies or hangs on a batch, each of the batch's bodies is decoded again on its own and gets its own result.
"""

import asyncio
import contextlib
import importlib.machinery
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from corgi.imaging.decode import OUT_OF_MEMORY, StoredImage, decode
from corgi.imaging.header import Header
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

BATCHES_PER_CHILD = 200
CRASHES_ALLOWED = 1
"""Number of crashes on an image decoded on its own after which it is tried again; one more crash rejects it."""
START_WAITS_S = (0.2, 1.0, 5.0)
"""Pauses before children that could not be started are started again, s."""
QUEUED_PER_CHILD = 2
"""Batches per child: one being decoded, one waiting."""
BATCH_IMAGES = 16
BATCH_BYTES = 2**20
_PRELOADED = ["corgi.imaging.decode"]
_START_ALLOWANCE_S = 30.0
_CPU_ALLOWANCE_S = 2

Result = StoredImage | Rejection
Item = tuple[bytes, Header | None]
"""A body and its header, if that was read before."""
Task = Callable[[bytes, DownloadSettings, Header | None], Result]

_main_lock = threading.Lock()


class DecoderPool:
    """A fixed number of decoding children, shared by all images of one engine."""

    def __init__(self, settings: DownloadSettings, task: Task = decode) -> None:
        """Prepare the pool; children start with the first image.

        Args:
            settings: sizes, limits and number of children.
            task: the function that a child runs; it must be defined at the top level of a module.

        """
        self._settings = settings
        self._task = task
        self._pool: ProcessPool | None = None
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._handed_over: set[asyncio.Task[None]] = set()
        self._max_batches = settings.decode_processes * QUEUED_PER_CHILD
        self.max_in_flight = settings.decode_processes * QUEUED_PER_CHILD * BATCH_IMAGES

    async def decode(self, data: bytes, header: Header | None = None) -> Result:
        """Return a body's image or its rejection; never raises because of what the body does to a child."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(((data, header), future))
        self._hand_over()
        return await future

    def close(self) -> None:
        """End the children; a later image starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def _hand_over(self) -> None:
        """Send waiting bodies to children with room; those that arrive while every child is busy are sent as a batch."""
        self._handed_over = {task for task in self._handed_over if not task.done() and _is_of_this_loop(task)}
        while self._waiting and len(self._handed_over) < self._max_batches:
            task = asyncio.create_task(self._finish(self._next_batch()))
            self._handed_over.add(task)
            task.add_done_callback(lambda _: self._hand_over())

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch, size = [], 0
        fair_share = min(BATCH_IMAGES, -(-len(self._waiting) // self._settings.decode_processes))
        while self._waiting and len(batch) < fair_share and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0][0])
        return batch

    async def _finish(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._together([item for item, _ in batch])
            for index, (item, future) in enumerate(batch):
                result = results[index] if results else await self._alone(item)
                if not future.done():
                    future.set_result(result)
        except (
            Exception
        ) as error:  # an error in this program: raised in the callers that wait for these bodies
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)

    async def _together(self, items: Sequence[Item]) -> list[Result] | None:
        """Return the results of several bodies, or None if each must be decoded alone."""
        if len(items) == 1:
            return None
        try:
            return await self._in_child(items)
        except BrokenProcessPool:
            self.close()
        except (TimeoutError, ProcessExpired, MemoryError):
            pass
        return None

    async def _alone(self, item: Item) -> Result:
        for _ in range(CRASHES_ALLOWED + 1):
            try:
                return (await self._in_child([item]))[0]
            except TimeoutError:
                return _too_slow()
            except ProcessExpired as error:
                if error.exitcode == -signal.SIGXCPU:
                    return _too_slow()
            except MemoryError:
                return OUT_OF_MEMORY
            except BrokenProcessPool:
                self.close()
        return Rejection(Reason.DECODER_CRASH, "the decoder died twice")

    async def _in_child(self, items: Sequence[Item]) -> list[Result]:
        limit_s = self._settings.decode_timeout_s
        future = await self._scheduled(items)
        # pebble's timeout starts when a child takes the task; this one is for a task that no child ever takes
        async with asyncio.timeout(_START_ALLOWANCE_S + (self._max_batches + 2) * limit_s):
            return await asyncio.wrap_future(future)

    async def _scheduled(self, items: Sequence[Item]) -> ProcessFuture:
        """Schedule bodies, in a new pool if a child dies while it starts, which is not caused by a body."""
        for wait_s in START_WAITS_S:
            try:
                return self._schedule(items)
            except OSError:
                self.close()
                await asyncio.sleep(wait_s)
        return self._schedule(items)

    def _schedule(self, items: Sequence[Item]) -> ProcessFuture:
        arguments = (self._task, items, self._settings)
        return self._started().schedule(run_limited, args=arguments, timeout=self._settings.decode_timeout_s)

    def _started(self) -> ProcessPool:
        if self._pool is not None and not self._pool.active:
            self.close()
        if self._pool is None:
            context = LightContext()
            context.set_forkserver_preload(_PRELOADED)
            self._pool = ProcessPool(
                max_workers=self._settings.decode_processes,
                max_tasks=BATCHES_PER_CHILD,
                initializer=limit_child,
                initargs=(int(self._settings.decode_memory),),
                context=context,  # pyright: ignore[reportArgumentType]
            )
        return self._pool


def run_limited(task: Task, items: Sequence[Item], settings: DownloadSettings) -> list[Result]:
    """Run a task on each body in a child, each with its own CPU limit, which also ends an endless loop."""
    results: list[Result] = []
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    for data, header in items:
        limit_s = int(time.process_time() + settings.decode_timeout_s) + _CPU_ALLOWANCE_S
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, hard))
        try:
            results.append(task(data, settings, header))
        except MemoryError:
            results.append(OUT_OF_MEMORY)
    return results


def limit_child(extra_bytes: int) -> None:
    """Limit this process to `extra_bytes` more memory than it has now; disable core dumps and the decoders' output."""
    cv2.setNumThreads(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.__stderr__.fileno() if sys.__stderr__ else 2)
    limit = _virtual_bytes() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _too_slow() -> Rejection:
    return Rejection(Reason.DECODE_TIMEOUT, "stopped at decode_timeout_s")


def _is_of_this_loop(task: asyncio.Task[None]) -> bool:
    return task.get_loop() is asyncio.get_running_loop()


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


class LightProcess(ForkServerProcess):
    """A child that does not import its parent's main module."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        with _nameless_main():
            return ForkServerProcess._Popen(process_obj)  # pyright: ignore[reportAttributeAccessIssue]


class LightContext(ForkServerContext):
    """A fork server context that starts LightProcess children."""

    Process = LightProcess  # pyright: ignore[reportAssignmentType]


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """While a child is started, show multiprocessing a main module that the child need not import."""
    main: Any = sys.modules["__main__"]
    with _main_lock:
        spec = getattr(main, "__spec__", None)
        main.__spec__ = importlib.machinery.ModuleSpec("__main__", None)
        try:
            yield
        finally:
            main.__spec__ = spec
