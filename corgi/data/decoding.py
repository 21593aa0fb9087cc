"""Bounded children that decode: a crash, a hang or a memory bomb costs exactly one picture.

Children come from a fork server that has loaded the decoders and nothing else, so that starting one takes milliseconds
even inside a Ray worker, whose main module would otherwise be imported by every child.
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
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import Any

from pebble import ProcessExpired, ProcessPool

from corgi.data.header import Rejected
from corgi.data.image import OUT_OF_MEMORY, Decoded, decode
from corgi.settings.data import DownloadSettings
from corgi.tables.schema import Reason

TASKS_PER_CHILD = 1000
CRASHES_ALLOWED = 1
"""Crashes after which a picture is tried again: the second one is its reason."""
QUEUED_PER_CHILD = 4
_PRELOADED = ["corgi.data.image", "scipy.fftpack"]
_START_ALLOWANCE_S = 30.0

Task = Callable[[bytes, DownloadSettings], Decoded | Rejected]

_main_lock = threading.Lock()


class DecoderPool:
    """A fixed number of decoding children shared by all pictures of one fetcher."""

    def __init__(self, settings: DownloadSettings, task: Task = decode) -> None:
        """Prepare the pool; children start with the first picture.

        Args:
            settings: sizes, limits and number of children.
            task: what a child runs, a function of a module.

        """
        self._settings = settings
        self._task = task
        self._pool: ProcessPool | None = None
        self.max_in_flight = settings.decode_processes * QUEUED_PER_CHILD

    async def decode(self, data: bytes) -> Decoded | Rejected:
        """Return a body's picture or the reason there is none; never raises for what the body does to a child."""
        for attempt in range(CRASHES_ALLOWED + 1):
            try:
                return await self._once(data)
            except TimeoutError:
                return Rejected(Reason.DECODE_TIMEOUT, "stopped at decode_timeout_s")
            except ProcessExpired as error:
                if error.exitcode == -signal.SIGXCPU:
                    return Rejected(Reason.DECODE_TIMEOUT, "stopped at decode_timeout_s")
            except MemoryError:
                return OUT_OF_MEMORY
            except BrokenProcessPool:
                self.close()
            if attempt == CRASHES_ALLOWED:
                break
        return Rejected(Reason.DECODER_CRASH, "the decoder died twice")

    def close(self) -> None:
        """End the children; a later picture starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    async def _once(self, data: bytes) -> Decoded | Rejected:
        settings = self._settings
        limit_s = settings.decode_timeout_s
        future = self._started().schedule(run_limited, args=(self._task, data, settings), timeout=limit_s)
        # pebble counts from the moment a child takes the task; this bound is for a task that no child ever takes
        async with asyncio.timeout(_START_ALLOWANCE_S + (QUEUED_PER_CHILD + 2) * limit_s):
            return await asyncio.wrap_future(future)

    def _started(self) -> ProcessPool:
        if self._pool is not None and not self._pool.active:
            self.close()
        if self._pool is None:
            context = LightContext()
            context.set_forkserver_preload(_PRELOADED)
            self._pool = ProcessPool(
                max_workers=self._settings.decode_processes,
                max_tasks=TASKS_PER_CHILD,
                initializer=limit_memory,
                initargs=(int(self._settings.decode_memory),),
                context=context,  # pyright: ignore[reportArgumentType]
            )
        return self._pool


def run_limited(task: Task, data: bytes, settings: DownloadSettings) -> Decoded | Rejected:
    """Run one task in a child under its own CPU limit, which also ends a loop that holds the interpreter."""
    spent_s = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent_s + settings.decode_timeout_s) + 2, hard))
    return task(data, settings)


def limit_memory(extra_bytes: int) -> None:
    """Let this process grow by `extra_bytes` over its present size and no further; leave no core dump."""
    limit = _virtual_bytes() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _virtual_bytes() -> int:
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


class LightProcess(ForkServerProcess):
    """A child that does not import its parent's main module."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        with _nameless_main():
            return ForkServerProcess._Popen(process_obj)  # pyright: ignore[reportAttributeAccessIssue]


class LightContext(ForkServerContext):
    """The fork server's context with such children."""

    Process = LightProcess  # pyright: ignore[reportAssignmentType]


@contextlib.contextmanager
def _nameless_main() -> Iterator[None]:
    """Let multiprocessing see a main module that needs no import in a child, for the moment of a start."""
    main: Any = sys.modules["__main__"]
    with _main_lock:
        spec = getattr(main, "__spec__", None)
        main.__spec__ = importlib.machinery.ModuleSpec("__main__", None)
        try:
            yield
        finally:
            main.__spec__ = spec
