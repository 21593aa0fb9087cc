"""The native engine: the guarded fetch and the bounded decoders in one event loop."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

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


class NativeEngine:
    """Fetch and decode URLs; memory holds the requests in flight and the images that are kept."""

    def __init__(self, settings: DownloadSettings, leases: Leases | None = None) -> None:
        """Prepare one event loop, one session and one pool of child processes."""
        self._runner = asyncio.Runner()
        self._fetcher: Fetcher | LocalReader = Fetcher(settings, leases)
        self._decoders = DecoderPool(settings)
        self._checks = RowChecks(settings)

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome per URL, in order; bodies are decoded while others are fetched."""
        return self._runner.run(self._outcomes(urls, expected_hashes))

    def close(self) -> None:
        """Close connections and end the child processes."""
        self._runner.run(self._fetcher.close())
        self._runner.close()
        self._decoders.close()

    async def _outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        slots = asyncio.Semaphore(self._decoders.max_in_flight)

        async def finish(index: int, fetched: Body | Rejection, weight: int) -> None:
            try:
                outcomes[index] = await self._decoded(fetched)
            finally:
                for _ in range(weight):
                    slots.release()

        async with (
            aclosing(self._fetcher.fetch_all(urls, expected_hashes)) as window,
            asyncio.TaskGroup() as group,
        ):
            async for index, fetched in window:
                size = len(fetched.data) if isinstance(fetched, Body) else 0
                weight = min(self._decoders.max_in_flight, 1 + size // BATCH_BYTES)
                for _ in range(weight):
                    # slow decoders delay new requests; a large body counts several times
                    await slots.acquire()
                group.create_task(finish(index, fetched, weight))
        return [outcomes[index] for index in range(len(urls))]

    async def _decoded(self, fetched: Body | Rejection) -> Outcome:
        if isinstance(fetched, Rejection):
            return replace(fetched, num_bytes=fetched.num_bytes or 0)
        result = self._checks.by_header(fetched.data)
        if result is None or isinstance(result, Header):
            result = await self._decoders.decode(fetched.data, result)
        return replace(result, http_status=fetched.http_status, num_bytes=len(fetched.data))


class LocalEngine(NativeEngine):
    """The same bounded decoders for images in an input; its `urls` are locations."""

    def __init__(self, settings: DownloadSettings, locations: Locations) -> None:
        """Prepare the event loop, the reader and the child processes."""
        super().__init__(settings)
        self._fetcher = LocalReader(settings, locations)
