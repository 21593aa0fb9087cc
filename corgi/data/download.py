"""The download stage: every planned URL becomes a picture or a reason, shard by shard."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from corgi.data.address import Guard
from corgi.data.blocklist import HashBlocklist
from corgi.data.decoding import DecoderPool
from corgi.data.fetch import Fetched, Fetcher
from corgi.data.header import Rejected, check_header
from corgi.data.local import LocalReader, Places, places_of
from corgi.data.outcome import Outcome, shard_tables
from corgi.data.planned import blocked_hashes, outcomes_of
from corgi.flow.cluster import connect
from corgi.flow.dag import Context
from corgi.flow.shards import Pool, make_shards
from corgi.settings.data import DownloadSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask, Store


def run(context: Context) -> list[ShardTask]:
    """Commit `images`, `captions` and `ledger` of every shard of the plan that has none yet.

    Raises:
        SettingsError: an entry of `resolve` or `allow_private` is not what it must be.

    """
    tasks = context.partitioned()
    pending = context.pending(tasks)
    if pending:
        settings: DownloadSettings = context.recipe.download
        Guard.of(settings.allow_private, settings.resolve)
        connect(context.recipe)
        pool = Pool(settings.num_actors, settings.cpus_per_actor)
        arguments = {
            "places": places_of(context.recipe.plan),
            "first_plan_shard": context.shards("plan")[0].path,
        }
        make_shards("corgi.data.download:DownloadShards", arguments, pending, pool, "download")
    return tasks


class Engine(Protocol):
    """What turns URLs into outcomes."""

    def outcomes(self, urls: Sequence[str]) -> list[Outcome]:
        """Return one outcome a URL, in order."""
        ...

    def close(self) -> None:
        """End what is open: connections and children."""
        ...


class DownloadShards:
    """Make shards of the download stage; connections and decoding children last from one shard to the next."""

    def __init__(self, places: Places | None = None, first_plan_shard: str | None = None) -> None:
        """Start with no engine; the first task's settings choose it.

        Args:
            places: where sources lie whose pictures are already there.
            first_plan_shard: path of the manifest beside which the plan keeps its blocked hashes.

        """
        self._places = places or {}
        self._first_plan_shard = first_plan_shard
        self._blocked: HashBlocklist | None = None
        self._local: NativeEngine | None = None
        self._engine: Engine | None = None
        self._settings: DownloadSettings | None = None

    def make(self, task: ShardTask) -> ShardManifest:
        """Fetch, decode and commit one shard of the plan."""
        settings = DownloadSettings.model_validate(task.settings["download"])
        engine, local = self._engines_of(settings)
        store = Store(task.root)
        (path,) = task.inputs["plan"]
        plan = store.read(store.read_shard(path), "plan")
        started = time.monotonic()
        outcomes = outcomes_of(
            plan,
            fetch=lambda part: engine.outcomes(part["url"].to_pylist()),
            read=lambda part: local.outcomes(part["url"].to_pylist()),
            blocked=self._blocked_of(store),
        )
        seconds = time.monotonic() - started
        tables = shard_tables(plan, outcomes)
        with store.attempt(task) as attempt:
            attempt.write_table("images", tables.images)
            attempt.write_table("captions", tables.captions)
            attempt.write_table("ledger", tables.ledger)
            return attempt.commit(tables.rows, tables.facts, {"fetch_and_decode_s": seconds})

    def close(self) -> None:
        """Close the engines; called when the actor ends."""
        for engine in (self._engine, self._local):
            if engine is not None:
                engine.close()
        self._engine = self._local = None

    def _engines_of(self, settings: DownloadSettings) -> "tuple[Engine, Engine]":
        """Return what asks the web and what reads pictures that are already there."""
        if self._engine is None or self._local is None or settings != self._settings:
            self.close()
            self._engine, self._settings = new_engine(settings), settings
            self._local = LocalEngine(settings, self._places)
        return self._engine, self._local

    def _blocked_of(self, store: Store) -> HashBlocklist:
        if self._blocked is None:
            path = self._first_plan_shard
            self._blocked = HashBlocklist() if path is None else blocked_hashes(store, store.read_shard(path))
        return self._blocked


def new_engine(settings: DownloadSettings) -> Engine:
    """Return the engine that the settings name."""
    if settings.engine == "img2dataset":
        from corgi.data.img2dataset_engine import Img2datasetEngine

        return Img2datasetEngine(settings)
    return NativeEngine(settings)


class NativeEngine:
    """The guarded fetch and the bounded decoders in one loop: memory holds the requests in flight and what is kept."""

    def __init__(self, settings: DownloadSettings) -> None:
        """Prepare one event loop, one session and one pool of children."""
        self._settings = settings
        self._runner = asyncio.Runner()
        self._fetcher: Fetcher | LocalReader = Fetcher(settings)
        self._decoders = DecoderPool(settings)

    def outcomes(self, urls: Sequence[str]) -> list[Outcome]:
        """Return one outcome a URL, in order; bodies are decoded while others are fetched."""
        return self._runner.run(self._outcomes(urls))

    def close(self) -> None:
        """Close connections and end the children."""
        self._runner.run(self._fetcher.close())
        self._runner.close()
        self._decoders.close()

    async def _outcomes(self, urls: Sequence[str]) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        slots = asyncio.Semaphore(self._decoders.max_in_flight)

        async def finish(index: int, fetched: Fetched) -> None:
            try:
                found[index] = await self._decoded(fetched)
            finally:
                slots.release()

        async with aclosing(self._fetcher.fetch_all(urls)) as window, asyncio.TaskGroup() as group:
            async for index, fetched in window:
                await slots.acquire()  # decoders that lag hold new requests back
                group.create_task(finish(index, fetched))
        return [found[index] for index in range(len(urls))]

    async def _decoded(self, fetched: Fetched) -> Outcome:
        told = {"http_status": fetched.http_status, "num_bytes": fetched.num_bytes}
        if fetched.body is None:
            return Outcome(reason=fetched.reason, detail=fetched.detail, **told)
        header = check_header(fetched.body, self._settings)
        found = header if isinstance(header, Rejected) else await self._decoders.decode(fetched.body)
        if isinstance(found, Rejected):
            return Outcome(reason=found.reason, detail=found.detail, **told)
        return Outcome(picture=found, **told)


class LocalEngine(NativeEngine):
    """The same bounded decoders behind pictures that are already there; its `urls` are locations."""

    def __init__(self, settings: DownloadSettings, places: Places) -> None:
        """Prepare the loop, the reader and the children."""
        super().__init__(settings)
        self._fetcher = LocalReader(settings, places)
