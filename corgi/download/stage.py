"""The download stage: every planned URL becomes a picture or a reason, shard by shard."""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

import pyarrow as pa

from corgi.download.carried import amended, commit_tables, to_fetch
from corgi.download.local import LocalReader, Places, places_of
from corgi.download.planned import blocked_hashes, outcomes_of
from corgi.download.progress import Progress
from corgi.download.rules import check_captions, check_picture, rules_of
from corgi.download.shard_tables import Outcome, shard_tables
from corgi.download.stats import shard_stats
from corgi.fetching.address import Guard
from corgi.fetching.exchange import tls_context
from corgi.fetching.fetcher import Fetcher
from corgi.fetching.host_slots import Lessor
from corgi.fetching.lease_actor import ClusterLessor, close_book, open_book
from corgi.fetching.response import Fetched
from corgi.flow.cluster import connect
from corgi.flow.dag import Context
from corgi.flow.shards import Pool, make_shards
from corgi.imaging.header import Rejected, check_header
from corgi.imaging.pool import BATCH_BYTES, DecoderPool
from corgi.planning.blocklist import HashBlocklist
from corgi.settings.data import DownloadSettings, FilterSettings
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
        tls_context(settings.ca_file)
        fetch_shards(context, pending)
    return tasks


def fetch_shards(context: Context, pending: Sequence[ShardTask]) -> None:
    """Make shards on the cluster; fetchers that are not alone in it share one book of host slots."""
    settings: DownloadSettings = context.recipe.download
    connect(context.recipe)
    pool = Pool(settings.num_actors, settings.cpus_per_actor)
    is_shared = settings.engine == "native" and (
        settings.num_actors > 1 or bool(os.environ.get("RAY_ADDRESS"))
    )
    arguments = {
        "num_fetchers": settings.num_actors if is_shared else 0,
        "places": places_of(context.recipe.plan),
        "first_plan_shard": context.entries("plan")[0].path,
    }
    progress = Progress(context.recipe, context.run.folder, len(context.partitioned()) - len(pending))
    if is_shared:
        open_book()
    try:
        make_shards(DownloadShards, arguments, pending, pool, "download", progress)
    finally:
        progress.finish()
        if is_shared:
            close_book()


class Engine(Protocol):
    """What turns URLs into outcomes."""

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome a URL, in order; a body that has not the hash expected (`sha256:hex`) is refused."""
        ...

    def close(self) -> None:
        """End what is open: connections and children."""
        ...


class DownloadShards:
    """Make shards of the download stage; connections and decoding children last from one shard to the next."""

    def __init__(
        self, num_fetchers: int = 0, places: Places | None = None, first_plan_shard: str | None = None
    ) -> None:
        """Start with no engine; the first task's settings choose it.

        Args:
            num_fetchers: how many share the cluster's book of host slots; 0: this one is alone.
            places: where sources lie whose pictures are already there.
            first_plan_shard: path of the manifest beside which the plan keeps its blocked hashes.

        """
        self._num_fetchers = num_fetchers
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
        plan = to_fetch(store, task, store.read(store.read_shard(path), "plan"))
        started = time.time()
        rules = rules_of(settings.filter)
        outcomes = outcomes_of(
            plan,
            fetch=lambda part: filtered_outcomes(engine, part, rules),
            read=lambda part: filtered_outcomes(local, part, rules),
            blocked=self._blocked_of(store),
        )
        stats = shard_stats(outcomes, started, time.time())
        tables = amended(store, task, shard_tables(plan, outcomes, rules))
        with store.attempt(task) as attempt:
            return commit_tables(attempt, tables, stats)

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
            lessor = ClusterLessor(self._num_fetchers) if self._num_fetchers else None
            self._engine, self._settings = new_engine(settings, lessor), settings
            self._local = LocalEngine(settings, self._places)
        return self._engine, self._local

    def _blocked_of(self, store: Store) -> HashBlocklist:
        if self._blocked is None:
            path = self._first_plan_shard
            self._blocked = HashBlocklist() if path is None else blocked_hashes(store, store.read_shard(path))
        return self._blocked


def filtered_outcomes(engine: Engine, plan: pa.Table, rules: FilterSettings) -> list[Outcome]:
    """Return one outcome a row of the plan: rows whose captions rule them out are not asked for."""
    rejected = [check_captions(_texts(captions), rules) for captions in plan["captions"].to_pylist()]
    wanted = plan.filter(pa.array([verdict is None for verdict in rejected], pa.bool_()))
    urls = wanted["url"].to_pylist()
    found = iter(engine.outcomes(urls, _expected_hashes(wanted)) if urls else ())
    return [
        _judged(next(found), rules)
        if verdict is None
        else Outcome(reason=verdict.reason, detail=verdict.detail)
        for verdict in rejected
    ]


def _texts(captions: list[dict[str, str]] | None) -> list[str]:
    return [entry["caption"] for entry in captions or ()]


def _judged(outcome: Outcome, rules: FilterSettings) -> Outcome:
    """Return the outcome after the rules about pictures."""
    picture = outcome.picture
    if picture is None:
        return outcome
    verdict = check_picture(picture.original_width, picture.original_height, outcome.num_bytes, rules)
    if verdict is None:
        return outcome
    return replace(outcome, picture=None, reason=verdict.reason, detail=verdict.detail)


def _expected_hashes(plan: pa.Table) -> list[str | None] | None:
    return plan["expected_hash"].to_pylist() if "expected_hash" in plan.column_names else None


def new_engine(settings: DownloadSettings, lessor: Lessor | None = None) -> Engine:
    """Return the engine that the settings name; the native one leases slots of hosts from `lessor`."""
    if settings.engine == "img2dataset":
        from corgi.download.img2dataset_engine import Img2datasetEngine

        return Img2datasetEngine(settings)
    return NativeEngine(settings, lessor)


class NativeEngine:
    """The guarded fetch and the bounded decoders in one loop: memory holds the requests in flight and what is kept."""

    def __init__(self, settings: DownloadSettings, lessor: Lessor | None = None) -> None:
        """Prepare one event loop, one session and one pool of children."""
        self._settings = settings
        self._runner = asyncio.Runner()
        self._fetcher: Fetcher | LocalReader = Fetcher(settings, lessor)
        self._decoders = DecoderPool(settings)
        self._rules = rules_of(settings.filter)

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome a URL, in order; bodies are decoded while others are fetched."""
        return self._runner.run(self._outcomes(urls, expected_hashes))

    def close(self) -> None:
        """Close connections and end the children."""
        self._runner.run(self._fetcher.close())
        self._runner.close()
        self._decoders.close()

    async def _outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None
    ) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        slots = asyncio.Semaphore(self._decoders.max_in_flight)

        async def finish(index: int, fetched: Fetched, weight: int) -> None:
            try:
                found[index] = await self._decoded(fetched)
            finally:
                for _ in range(weight):
                    slots.release()

        async with (
            aclosing(self._fetcher.fetch_all(urls, expected_hashes)) as window,
            asyncio.TaskGroup() as group,
        ):
            async for index, fetched in window:
                weight = min(self._decoders.max_in_flight, 1 + len(fetched.body or b"") // BATCH_BYTES)
                for _ in range(weight):
                    # decoders that lag hold new requests back, large bodies more of them
                    await slots.acquire()
                group.create_task(finish(index, fetched, weight))
        return [found[index] for index in range(len(urls))]

    async def _decoded(self, fetched: Fetched) -> Outcome:
        told = {"http_status": fetched.http_status, "num_bytes": fetched.num_bytes}
        if fetched.body is None:
            return Outcome(reason=fetched.reason, detail=fetched.detail, **told)
        found = self._refused(fetched.body) or await self._decoders.decode(fetched.body)
        if not isinstance(found, Rejected):  # a header that only Pillow reads was not judged before
            size = found.original_width, found.original_height
            found = check_picture(*size, len(fetched.body), self._rules) or found
        if isinstance(found, Rejected):
            return Outcome(reason=found.reason, detail=found.detail, **told)
        return Outcome(picture=found, **told)

    def _refused(self, body: bytes) -> Rejected | None:
        """Return why a body is not worth a decoder, by its header alone; None where only a decoder can tell."""
        header = check_header(body, self._settings)
        if header is None or isinstance(header, Rejected):
            return header
        return check_picture(header.width, header.height, len(body), self._rules)


class LocalEngine(NativeEngine):
    """The same bounded decoders behind pictures that are already there; its `urls` are locations."""

    def __init__(self, settings: DownloadSettings, places: Places) -> None:
        """Prepare the loop, the reader and the children."""
        super().__init__(settings)
        self._fetcher = LocalReader(settings, places)
