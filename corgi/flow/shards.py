"""Shards through Ray Data: one call makes and commits one shard and returns only its name and counts."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Ray leaves types out of what it returns

import dataclasses
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Protocol, TypedDict, cast, runtime_checkable

from corgi.flow import failures as failing
from corgi.flow import screen
from corgi.flow.cluster import connect, is_of_this_command
from corgi.flow.context import Context
from corgi.flow.demand import Demand, check_one
from corgi.flow.executor import is_in_process
from corgi.flow.failures import TRIES_OF_A_WORKER, Failure, explained, lost, tried
from corgi.flow.node_types import alive
from corgi.flow.placement import selector
from corgi.tables.manifest import CARRIED, ShardManifest
from corgi.tables.store import ShardTask

OWN_CHILDREN = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "false"}}
"""A maker ends its own child processes when its actor ends. Ray would kill them earlier, together with Python's resource tracker,
whose successor does not know the names of the decoders' semaphores; children also end by themselves if an actor is killed."""

LOST_WORKERS = 2
"""How often a shard is started again after its worker was lost, before it counts as failed."""
LEAST_TO_STOP = 8
"""Number of failures in succession, or two per worker if that is more, after which a stage is given up: on a full disk every shard fails."""


class Maker(Protocol):
    """A worker's object: built once per actor, called once per shard."""

    def make(self, task: ShardTask, /) -> ShardManifest:
        """Do one shard's work and commit it."""
        ...


class Memory(TypedDict, total=False):
    """The bytes that an actor reserves, as Ray's argument."""

    memory: int


@dataclasses.dataclass(frozen=True)
class Pool:
    """The number of actors and what each reserves. The number is fixed: autoscaled pools starve behind a fast producer."""

    num_actors: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    """Bytes that an actor reserves."""
    shards_at_once: int = 1
    """Number of shards that one actor makes at the same time, each in its own thread."""
    shards_given: int | None = None  # made or waiting at one actor; None: two for each made at the same time

    @property
    def demand(self) -> Memory:
        """Return what an actor reserves besides CPUs and GPUs, as Ray's arguments."""
        return {"memory": self.memory} if self.memory else {}


@runtime_checkable
class Tells(Protocol):
    """A maker that reports about its work."""

    def told(self) -> str:
        """Return a one-line report; empty if there is nothing to report."""
        ...


class _Made(TypedDict):
    """What a worker returns about a shard; `rejected` is JSON, and so is `failure`, empty if the shard was made.

    `note` is the report of the worker's maker.
    """

    key: str
    shard: str
    rows_in: int
    kept: int
    carried: int
    rejected: str
    failure: str
    note: str


class ShardRow(TypedDict):
    """The counts of a shard that was just made; `rejected` holds rows by reason."""

    shard: str
    rows_in: int
    kept: int
    rejected: dict[str, int]


def make_pending(
    context: Context,
    maker: Callable[..., Maker],
    tasks: Sequence[ShardTask],
    pool: Pool,
    label: str,
    arguments: Mapping[str, object] | None = None,
) -> bool:
    """Make those shards of a stage that are not committed yet, as `make_shards` does; return whether there were any.

    The cluster is only joined if there is work.
    """
    pending = context.pending(tasks)
    if pending:
        connect(context.recipe)
        make_shards(maker, arguments or {}, pending, pool, label)
    return bool(pending)


def make_shards(
    maker: Callable[..., Maker],
    arguments: Mapping[str, object],
    tasks: Sequence[ShardTask],
    pool: Pool,
    label: str,
    on_shard: Callable[[ShardRow], None] = lambda row: None,
) -> None:
    """Run `maker(**arguments).make(task)` for every task on a Ray Data actor pool, with progress on screen.

    `on_shard` is called with each shard as soon as it is made. A shard that fails is tried again while the others are made, and a
    last time after them by another worker that makes no other shard at that time, so that if it kills its worker, no other shard is lost.

    Raises:
        CorgiError: some shards failed each time, or too many in succession; the message names them and why.

    """
    if not tasks:
        return
    with screen.bar(label, len(tasks), "shard") as bar:
        work = _Work(maker, arguments, pool, _Progress(bar, on_shard))
        if not is_in_process():
            check_room(Demand(label, pool.num_actors, pool.cpus, pool.gpus, memory=float(pool.memory)))
        failures, stopped = work.make(tasks, TRIES_OF_A_WORKER)
        again = [task for task in tasks if task.key in failures and not failures[task.key].is_users]
        if again and not stopped:
            nodes = {failures[task.key].node for task in again}
            failures = {key: found for key, found in failures.items() if found.is_users}
            alone = dataclasses.replace(pool, shards_at_once=1, shards_given=1)
            failures |= dataclasses.replace(work, pool=alone).make(again, 1, elsewhere(nodes, pool))[0]
    if work.progress.note:
        screen.current().say(f"{label}: {work.progress.note}")
    if failures:
        raise explained(label, list(failures.values()), len(tasks), stopped)


class _Progress:
    """Shards and rows made so far, on the screen's bar."""

    def __init__(self, bar: screen.Bar, on_shard: Callable[[ShardRow], None]) -> None:
        self._bar, self._on_shard = bar, on_shard
        self._shards = self._rows = self._kept = self._carried = 0
        self._started = time.monotonic()
        self.note = ""

    def add(self, made: _Made) -> None:
        row: ShardRow = {
            "shard": made["shard"],
            "rows_in": made["rows_in"],
            "kept": made["kept"],
            "rejected": json.loads(made["rejected"]),
        }
        self._on_shard(row)
        self._shards += 1
        self._rows, self._kept = self._rows + row["rows_in"], self._kept + row["kept"]
        self._carried += made["carried"]
        rate = self._rows / max(time.monotonic() - self._started, 1e-9)
        share = f"{self._kept / max(self._rows, 1):.1%} of {self._rows} rows kept, {rate:.0f} rows/s"
        if self._carried:
            share = f"{share}, {self._carried} carried over"
        self.note = made["note"]
        self._bar.reach(self._shards, f"{share}, {self.note}" if self.note else share)


@dataclasses.dataclass(frozen=True)
class _Work:
    """What makes the shards of one stage."""

    maker: Callable[..., Maker]
    arguments: Mapping[str, object]
    pool: Pool
    progress: _Progress

    def make(
        self, tasks: Sequence[ShardTask], tries: int, selected: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Failure], bool]:
        """Make shards; return the failures by key, and whether the rest was not tried because too many failed in succession."""
        failures: dict[str, Failure] = {}
        seen: set[str] = set()
        in_succession = 0
        rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
        made_rows = (
            self._made_here(rows, tries) if is_in_process() else self._made_by_ray(rows, tries, selected)
        )
        with closing(made_rows):
            for made in made_rows:
                seen.add(made["key"])
                in_succession = in_succession + 1 if made["failure"] else 0
                if not made["failure"]:
                    self.progress.add(made)
                    continue
                failures[made["key"]] = Failure(**json.loads(made["failure"]))
                if in_succession >= max(LEAST_TO_STOP, 2 * self.pool.num_actors):
                    return failures, len(seen) < len(tasks)
        absent = [task for task in tasks if task.key not in seen]
        return failures | {task.key: lost(task.shard, 1 + LOST_WORKERS) for task in absent}, False

    def _made_here(self, rows: list[dict[str, str]], tries: int) -> Generator[_Made]:
        called = ShardMaker(self.maker, self.arguments, tries, failing.WAIT_S)
        for row in rows:
            made = {name: values[0] for name, values in called({"task": [row["task"]]}).items()}
            yield cast("_Made", made)

    def _made_by_ray(
        self, rows: list[dict[str, str]], tries: int, selected: Mapping[str, str] | None
    ) -> Generator[_Made]:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        # Ray Data would log several lines for each execution and each lost worker; `explained` reports failures instead.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1
        context.execution_options.label_selector = {**selector(self.pool.gpus), **(selected or {})} or None
        items = ray.data.from_items(rows, override_num_blocks=len(rows))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # max_task_retries is deprecated, but has no replacement yet
            dataset = items.map_batches(
                ShardMaker,
                fn_constructor_kwargs={
                    "maker": self.maker,
                    "arguments": self.arguments,
                    "tries": tries,
                    "wait_s": failing.WAIT_S,
                },
                batch_size=1,
                compute=ActorPoolStrategy(
                    size=min(self.pool.num_actors, len(rows)),
                    max_concurrent_calls_per_actor=self.pool.shards_at_once,
                    enable_true_multi_threading=self.pool.shards_at_once > 1,
                    max_tasks_in_flight_per_actor=self.pool.shards_given,
                ),
                num_cpus=self.pool.cpus,
                num_gpus=self.pool.gpus or None,
                runtime_env=OWN_CHILDREN,
                **self.pool.demand,
                max_task_retries=LOST_WORKERS,
            )
        try:
            yield from cast("Iterator[_Made]", dataset.iter_rows())
        finally:  # no shard may be lost in other passes over shards
            context.max_errored_blocks = 0


def check_room(demand: Demand) -> None:
    """Raise ClusterError if Ray was started by this command and can never provide one of the workers; another cluster may still grow."""
    if is_of_this_command():
        check_one(demand, alive())


def elsewhere(nodes: set[str], pool: Pool) -> dict[str, str]:
    """Return a selector for nodes other than these if a worker fits on such a node that is alive; else for any node."""
    known = sorted(nodes - {""})
    if is_in_process() or not known or not alive(known).num_workers(pool.cpus, pool.gpus, pool.memory):
        return {}
    return {"ray.io/node-id": f"!in({','.join(known)})"}


class ShardMaker:
    """Ray Data's callable class around a Maker."""

    def __init__(
        self,
        maker: Callable[..., Maker],
        arguments: Mapping[str, object],
        tries: int = TRIES_OF_A_WORKER,
        wait_s: float = failing.WAIT_S,
    ) -> None:
        """Build the maker inside the actor; a class is pickled by its name.

        `tries` is how often a shard is tried, `wait_s` the time between two tries, which the driver passes because workers import modules again.
        """
        self._maker, self._tries, self._wait_s = maker(**arguments), tries, wait_s

    def __del__(self) -> None:
        """Close what the maker has opened; Ray Data drops this object when its actor ends."""
        close = getattr(getattr(self, "_maker", None), "close", None)
        if close is not None:
            close()

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[str] | list[int]]:
        """Make each shard named in the batch; pixels are not passed between operators."""
        return _columns([self._row(read_task(text)) for text in batch["task"]])

    def _row(self, task: ShardTask) -> _Made:
        found = tried(self._maker.make, task, self._tries, _node(), self._wait_s)
        if isinstance(found, Failure):
            failed: _Made = {
                "key": task.key,
                "shard": task.shard,
                "rows_in": 0,
                "kept": 0,
                "carried": 0,
                "rejected": "{}",
                "failure": json.dumps(found.to_dict()),
                "note": "",
            }
            return failed
        return {
            "key": task.key,
            "shard": found.shard,
            "rows_in": found.rows.rows_in,
            "kept": found.rows.kept,
            "carried": int(found.facts.get(CARRIED, 0)),
            "rejected": json.dumps(found.rows.rejected),
            "failure": "",
            "note": self._maker.told() if isinstance(self._maker, Tells) else "",
        }


def _columns(rows: Sequence[_Made]) -> dict[str, list[str] | list[int]]:
    return {name: [row[name] for row in rows] for name in _Made.__annotations__}


def _node() -> str:
    """Return the id of this worker's node; empty outside Ray."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray is not None and ray.is_initialized() else ""


def read_task(text: str) -> ShardTask:
    """Return the task written as JSON."""
    values = json.loads(str(text))
    values["inputs"] = {name: tuple(paths) for name, paths in values["inputs"].items()}
    values["earlier"] = tuple((key, digest) for key, digest in values["earlier"])
    return ShardTask(**values)
