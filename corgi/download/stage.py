"""The download stage: every planned URL becomes a stored image or a rejection, shard by shard."""

import os
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
from corgi.download.shard_tables import shard_tables
from corgi.download.stats import shard_stats
from corgi.fetching.address import Guard
from corgi.fetching.lease_actor import ClusterLeases, start_lease_actor, stop_lease_actor
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
    """Make shards on the cluster; fetchers that are not alone in it share one lease actor."""
    settings: DownloadSettings = context.recipe.download
    connect(context.recipe)
    pool = Pool(settings.num_actors, settings.cpus_per_actor)
    is_shared = settings.engine == "native" and (
        settings.num_actors > 1 or bool(os.environ.get("RAY_ADDRESS"))
    )
    arguments = {
        "num_fetchers": settings.num_actors if is_shared else 0,
        "locations": locations_of(context.recipe.plan),
        "first_plan_shard": context.entries("plan")[0].path,
        "earlier": [stage.path for stage in context.taken_over()],
    }
    progress = Progress(context.recipe, context.run.folder, len(context.partitioned()) - len(pending))
    if is_shared:
        start_lease_actor()
    try:
        make_shards(DownloadShards, arguments, pending, pool, "download", progress)
    finally:
        progress.finish()
        if is_shared:
            stop_lease_actor()


class DownloadShards:
    """Make shards of the download stage; connections and decoder processes are reused from shard to shard."""

    def __init__(
        self,
        num_fetchers: int = 0,
        locations: Locations | None = None,
        first_plan_shard: str | None = None,
        earlier: Sequence[str] = (),
    ) -> None:
        """Start without an engine; the first task's settings choose it.

        Args:
            num_fetchers: how many share the cluster's host slots; 0: this one is alone.
            locations: of the inputs that hold images.
            first_plan_shard: path of the shard manifest with the plan's blocked hashes.
            earlier: paths of the closed stages whose outcomes are taken over.

        """
        self._num_fetchers = num_fetchers
        self._locations = locations or {}
        self._first_plan_shard = first_plan_shard
        self._earlier_stages = earlier
        self._earlier: EarlierDownloads | None = None
        self._blocked: HashBlocklist | None = None
        self._inputs: LocalEngine | None = None
        self._engine: Engine | None = None
        self._settings: DownloadSettings | None = None

    def make(self, task: ShardTask) -> ShardManifest:
        """Fetch, decode and commit one shard of the plan."""
        settings = DownloadSettings.model_validate(task.settings["download"])
        web, inputs = self._engines_of(settings)
        store = Store(task.root)
        (path,) = task.inputs["plan"]
        plan = to_fetch(store, task, store.read(store.read_shard(path), "plan"))
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
        tables = amended(store, task, made)
        with store.attempt(task) as attempt:
            return commit_tables(attempt, tables, stats)

    def close(self) -> None:
        """Close the engines; called when the actor ends."""
        for engine in (self._engine, self._inputs):
            if engine is not None:
                engine.close()
        self._engine = self._inputs = None

    def _engines_of(self, settings: DownloadSettings) -> tuple[Engine, Engine]:
        """Return the engine for the web and the one for images in inputs."""
        if self._engine is None or self._inputs is None or settings != self._settings:
            self.close()
            leases = ClusterLeases(self._num_fetchers) if self._num_fetchers else None
            self._engine, self._settings = new_engine(settings, leases), settings
            self._inputs = LocalEngine(settings, self._locations)
        return self._engine, self._inputs

    def _known(self, store: Store, task: ShardTask, plan: pa.Table) -> KnownOutcomes:
        """Return the outcomes that are taken over; none if rows are asked for again."""
        if not self._earlier_stages or "amend" in task.payload:
            return KnownOutcomes()
        if self._earlier is None:
            self._earlier = EarlierDownloads(store, self._earlier_stages, self._blocked_of(store))
        return self._earlier.outcomes(plan)

    def _blocked_of(self, store: Store) -> HashBlocklist:
        if self._blocked is None:
            path = self._first_plan_shard
            self._blocked = HashBlocklist() if path is None else blocked_hashes(store, store.read_shard(path))
        return self._blocked


def new_engine(settings: DownloadSettings, leases: Leases | None = None) -> Engine:
    """Return the engine that the settings name; the native one leases host slots from `leases`."""
    if settings.engine == "img2dataset":
        from corgi.download.img2dataset_engine import Img2datasetEngine

        return Img2datasetEngine(settings)
    return NativeEngine(settings, leases)
