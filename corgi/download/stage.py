"""The download stage: every planned URL becomes a stored image or a rejection, shard by shard."""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from corgi.download.carried import amended, commit_tables, to_fetch
from corgi.download.checks import RowChecks
from corgi.download.earlier import EarlierDownloads
from corgi.download.local import Locations, locations_of
from corgi.download.native_engine import LocalEngine, NativeEngine
from corgi.download.planned import Engine, KnownOutcomes, blocked_hashes, outcomes_of
from corgi.download.progress import Progress
from corgi.download.shard_tables import ShardTables, shard_tables
from corgi.download.stats import shard_stats
from corgi.fetching.address import Guard
from corgi.fetching.lease_actor import cluster_leases, start_lease_actors, stop_lease_actors
from corgi.fetching.lease_client import Leases
from corgi.fetching.tls import tls_context
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_shards
from corgi.planning.blocklist import HashBlocklist
from corgi.settings.data import DownloadSettings
from corgi.tables.manifest import CARRIED, ShardManifest
from corgi.tables.store import ShardTask, Store


def run(context: Context) -> list[ShardTask]:
    """Commit `images`, `captions` and `ledger` of every shard of the plan that has none yet.

    Raises:
        SettingsError: an entry of `resolve` or `allow_private` is malformed, or `ca_file` cannot be read.

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
    """Make shards on the cluster; if there may be several fetchers, they share lease actors."""
    settings: DownloadSettings = context.recipe.download
    connect(context.recipe)
    at_once = settings.shards_per_actor if settings.engine == "native" else 1
    pool = Pool(
        settings.num_actors, settings.cpus_per_actor, shards_at_once=at_once, shards_given=max(2, at_once)
    )
    is_shared = settings.engine == "native" and (
        settings.num_actors > 1 or bool(os.environ.get("RAY_ADDRESS"))
    )
    arguments = {
        "num_fetchers": settings.num_actors,
        "num_tables": start_lease_actors(settings.host_tables) if is_shared else 0,
        "locations": locations_of(context.recipe.plan),
        "first_plan_shard": context.entries("plan")[0].path,
        "earlier": [stage.path for stage in context.taken_over()],
    }
    progress = Progress(context.recipe, context.run.folder, len(context.partitioned()) - len(pending))
    try:
        make_shards(DownloadShards, arguments, pending, pool, "download", progress)
    finally:
        progress.finish()
        if is_shared:
            stop_lease_actors()


class DownloadShards:
    """Make shards of the download stage; all shards share connections and decoder processes, also those made at the same time."""

    def __init__(
        self,
        num_fetchers: int = 1,
        num_tables: int = 0,
        locations: Locations | None = None,
        first_plan_shard: str | None = None,
        earlier: Sequence[str] = (),
    ) -> None:
        """Start without an engine; the first task's settings choose it.

        Args:
            num_fetchers: number of fetchers that share the cluster's host slots.
            num_tables: number of lease actors that they share; 0: this fetcher shares with no other.
            locations: those of the inputs that contain images.
            first_plan_shard: path of the shard manifest with the plan's blocked hashes.
            earlier: paths of the closed stages whose outcomes are taken over.

        """
        self._num_fetchers, self._num_tables = num_fetchers, num_tables
        self._locations = locations or {}
        self._first_plan_shard = first_plan_shard
        self._earlier_stages = earlier
        self._earlier: EarlierDownloads | None = None
        self._blocked: HashBlocklist | None = None
        self._inputs: LocalEngine | None = None
        self._engine: Engine | None = None
        self._settings: DownloadSettings | None = None
        self._opening = threading.RLock()

    def make(self, task: ShardTask) -> ShardManifest:
        """Fetch, decode and commit one shard of the plan."""
        settings = DownloadSettings.model_validate(task.settings["download"])
        store = Store(task.root)
        tables, stats = self._fetched(store, task, settings)
        with store.attempt(task) as attempt:
            return commit_tables(attempt, tables, stats)

    def close(self) -> None:
        """Close the engines; called when the actor ends."""
        for engine in (self._engine, self._inputs):
            if engine is not None:
                engine.close()
        self._engine = self._inputs = None

    def _fetched(
        self, store: Store, task: ShardTask, settings: DownloadSettings
    ) -> tuple[ShardTables, dict[str, object]]:
        """Return a shard's tables and its timings; a second copy of the images is in memory until this returns."""
        (path,) = task.inputs["plan"]
        plan = to_fetch(store, task, store.read(store.read_shard(path), "plan"))
        web, inputs = self._engines_of(settings)
        started = time.time()
        checks = RowChecks(settings, self._blocked_of(store))
        known = self._known(store, task, plan)
        outcomes = outcomes_of(plan, web, inputs, checks, known)
        new = [
            outcome
            for url, outcome in zip(plan["url"].to_pylist(), outcomes, strict=True)
            if url not in known
        ]
        stats = shard_stats(new, started, time.time())
        made = shard_tables(plan, outcomes, checks.rules)
        if known.num_taken:
            made = replace(made, facts={**made.facts, CARRIED: known.num_taken})
        return amended(store, task, made), stats

    def _engines_of(self, settings: DownloadSettings) -> tuple[Engine, Engine]:
        """Return the engine for the web and the engine for images in inputs."""
        with self._opening:
            if self._engine is None or self._inputs is None or settings != self._settings:
                self.close()
                tables = cluster_leases(self._num_fetchers, self._num_tables)
                self._engine, self._settings = new_engine(settings, tables), settings
                self._inputs = LocalEngine(settings, self._locations)
            return self._engine, self._inputs

    def _known(self, store: Store, task: ShardTask, plan: pa.Table) -> KnownOutcomes:
        """Return the outcomes that are taken over; none if rows are fetched again."""
        if not self._earlier_stages or "amend" in task.payload:
            return KnownOutcomes()
        with self._opening:
            if self._earlier is None:
                self._earlier = EarlierDownloads(store, self._earlier_stages, self._blocked_of(store))
        return self._earlier.outcomes(plan)

    def _blocked_of(self, store: Store) -> HashBlocklist:
        with self._opening:
            if self._blocked is None:
                path = self._first_plan_shard
                self._blocked = (
                    HashBlocklist() if path is None else blocked_hashes(store, store.read_shard(path))
                )
            return self._blocked


def new_engine(settings: DownloadSettings, tables: Sequence[Leases] = ()) -> Engine:
    """Return the engine that the settings name; the native one leases host slots from the tables, if there are any."""
    if settings.engine == "img2dataset":
        from corgi.download.img2dataset_engine import Img2datasetEngine

        return Img2datasetEngine(settings)
    return NativeEngine(settings, tables)
