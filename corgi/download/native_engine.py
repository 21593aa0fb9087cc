"""The native engine: guarded fetching and bounded decoding in one event loop, for several shards at the same time."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from corgi.download.checks import RowChecks
from corgi.download.local import LocalReader, Locations
from corgi.download.planned import Outcome
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.lease_client import Leases
from corgi.fetching.response import Body
from corgi.imaging.header import Header
from corgi.imaging.pool import BATCH_BYTES, DecoderPool
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection

_Result = TypeVar("_Result")


class _Places:
    """A weighted semaphore for the bodies that are in a decoder or wait for one, over all shards; a large body takes several places."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._turn = asyncio.Lock()
        self._given = asyncio.Event()

    async def take(self, number: int) -> None:
        """Wait for a number of places, first come first served."""
        async with self._turn:
            while self._free < number:
                self._given.clear()
                await self._given.wait()
            self._free -= number

    def give(self, number: int) -> None:
        self._free += number
        self._given.set()


class NativeEngine:
    """Fetch and decode URLs; only the requests in flight and the kept images are in memory."""

    def __init__(self, settings: DownloadSettings, tables: Sequence[Leases] = ()) -> None:
        """Prepare one event loop in a separate thread, one session and one pool of child processes."""
        self._fetcher: Fetcher | LocalReader = Fetcher(settings, tables)
        self._decoders = DecoderPool(settings)
        self._checks = RowChecks(settings)
        self._places = _Places(self._decoders.max_in_flight)
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="corgi-fetch", daemon=True)
        self._thread.start()

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome per URL, in order; bodies are decoded while others are fetched.

        Threads may call this at the same time; their requests share connections and decoders.
        """
        return self._result(self._outcomes(urls, expected_hashes))

    def close(self) -> None:
        """Cancel the requests in flight, close connections and end the child processes."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._decoders.close()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closing.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._fetcher.close()

    def _result(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return the result of work in the event loop; the work is cancelled if the wait for it is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}

        async def finish(index: int, fetched: Body | Rejection) -> None:
            outcomes[index] = await self._decoded(fetched)

        async with (
            aclosing(self._fetcher.fetch_all(urls, expected_hashes)) as window,
            asyncio.TaskGroup() as group,
        ):
            async for index, fetched in window:
                size = len(fetched.data) if isinstance(fetched, Body) else 0
                weight = min(self._decoders.max_in_flight, 1 + size // BATCH_BYTES)
                await self._places.take(weight)  # slow decoders delay new requests
                task = group.create_task(finish(index, fetched))
                task.add_done_callback(lambda _, weight=weight: self._places.give(weight))
        return [outcomes[index] for index in range(len(urls))]

    async def _decoded(self, fetched: Body | Rejection) -> Outcome:
        if isinstance(fetched, Rejection):
            return replace(fetched, num_bytes=fetched.num_bytes or 0)
        result = self._checks.by_header(fetched.data)
        if result is None or isinstance(result, Header):
            result = await self._decoders.decode(fetched.data, result)
        return replace(result, http_status=fetched.http_status, num_bytes=len(fetched.data))


class LocalEngine(NativeEngine):
    """The same bounded decoders for images in inputs; its `urls` are locations."""

    def __init__(self, settings: DownloadSettings, locations: Locations) -> None:
        """Prepare the event loop, the reader and the child processes."""
        super().__init__(settings)
        self._fetcher = LocalReader(settings, locations)
