"""Shards through Ray Data: one call makes and commits one shard and returns only its name and counts."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypedDict, cast

from corgi.flow import screen
from corgi.flow.cluster import connect, is_of_this_command
from corgi.flow.context import Context
from corgi.flow.demand import Demand, check_one
from corgi.flow.executor import is_in_process
from corgi.flow.node_types import alive
from corgi.flow.placement import selector
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask

_OWN_CHILDREN = {"env_vars": {"RAY_kill_child_processes_on_worker_exit": "false"}}
"""A maker ends its own children as its actor ends. Ray would kill them before, and Python's resource tracker with them, to
whose successor the names of the decoders' semaphores are unknown; children also end by themselves when an actor is killed."""


class Maker(Protocol):
    """A worker's object: built once per actor, called once per shard."""

    def make(self, task: ShardTask, /) -> ShardManifest:
        """Do one shard's work and commit it."""
        ...


@dataclasses.dataclass(frozen=True)
class Pool:
    """The number of actors and what each reserves. The number is fixed: autoscaled pools starve behind a fast producer."""

    num_actors: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


class _Made(TypedDict):
    """What a worker returns about a shard that it has made; `rejected` is JSON."""

    shard: str
    rows_in: int
    kept: int
    rejected: str


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

    The cluster is connected to only when there is work.
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

    `on_shard` is called with each shard as soon as it is made.
    """
    if not tasks:
        return
    rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
    if is_in_process():
        made_rows = _made_here(maker, arguments, rows)
    else:
        check_room(Demand(label, pool.num_actors, pool.cpus, pool.gpus))
        made_rows = _made_by_ray(maker, arguments, rows, pool)
    num_rows, num_kept, started = 0, 0, time.monotonic()
    with screen.bar(label, len(tasks), "shard") as bar:
        for num_made, made in enumerate(made_rows, 1):
            row: ShardRow = {**made, "rejected": json.loads(made["rejected"])}
            on_shard(row)
            num_rows, num_kept = num_rows + row["rows_in"], num_kept + row["kept"]
            rate = num_rows / max(time.monotonic() - started, 1e-9)
            bar.reach(
                num_made, f"{num_kept / max(num_rows, 1):.1%} of {num_rows} rows kept, {rate:.0f} rows/s"
            )


def _made_here(
    maker: Callable[..., Maker], arguments: Mapping[str, object], rows: list[dict[str, str]]
) -> Iterator[_Made]:
    called = ShardMaker(maker, arguments)
    for row in rows:
        made = {name: values[0] for name, values in called({"task": [row["task"]]}).items()}
        yield cast("_Made", made)


def _made_by_ray(
    maker: Callable[..., Maker], arguments: Mapping[str, object], rows: list[dict[str, str]], pool: Pool
) -> Iterator[_Made]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    # Each execution would announce itself in several lines; errors still speak.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    context.execution_options.label_selector = selector(pool.gpus) or None
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        ShardMaker,
        fn_constructor_kwargs={"maker": maker, "arguments": arguments},
        batch_size=1,
        compute=ActorPoolStrategy(size=min(pool.num_actors, len(rows))),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus or None,
        runtime_env=_OWN_CHILDREN,
    )
    yield from cast("Iterator[_Made]", dataset.iter_rows())


def check_room(demand: Demand) -> None:
    """Raise if the Ray of this command can never provide one of the workers; a cluster may still grow."""
    if is_of_this_command():
        check_one(demand, alive())


def make_arriving(
    maker: Callable[..., Maker],
    arguments: Mapping[str, object],
    arriving: Callable[[], tuple[Sequence[ShardTask], bool]],
    pool: Pool,
) -> None:
    """Make shards on as many and the same actors as `make_shards`, each shard as soon as its task arrives.

    `arriving` returns new tasks and whether more may come. Ray Data could take only the tasks known at its start.
    """
    import ray
    from ray.util import ActorPool

    kind = ray.remote(
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        label_selector=selector(pool.gpus),
        runtime_env=_OWN_CHILDREN,
    )(ShardMaker)
    actors: Any = ActorPool([kind.remote(maker, arguments) for _ in range(pool.num_actors)])
    more, in_hand = True, 0
    while more or in_hand:
        if more and in_hand < 2 * pool.num_actors:  # a look at a large store takes seconds
            tasks, more = arriving()
            in_hand += len(tasks)
            for task in tasks:
                row = {"task": [json.dumps(dataclasses.asdict(task))]}
                actors.submit(lambda actor, value: actor.__call__.remote(value), row)
        with suppress(TimeoutError):
            if in_hand:
                actors.get_next_unordered(timeout=0.5)
                in_hand -= 1


class ShardMaker:
    """Ray Data's callable class around a Maker."""

    def __init__(self, maker: Callable[..., Maker], arguments: Mapping[str, object]) -> None:
        """Build the maker inside the actor; a class is pickled by its name."""
        self._maker = maker(**arguments)

    def __del__(self) -> None:
        """Close what the maker has opened; Ray Data drops this object when its actor ends."""
        close = getattr(getattr(self, "_maker", None), "close", None)
        if close is not None:
            close()

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, list[str] | list[int]]:
        """Make each shard named in the batch; pixels do not cross operators."""
        made = [self._maker.make(read_task(text)) for text in batch["task"]]
        return {
            "shard": [m.shard for m in made],
            "rows_in": [m.rows.rows_in for m in made],
            "kept": [m.rows.kept for m in made],
            "rejected": [json.dumps(m.rows.rejected) for m in made],
        }


def read_task(text: str) -> ShardTask:
    """Return the task written as JSON."""
    values = json.loads(str(text))
    values["inputs"] = {name: tuple(paths) for name, paths in values["inputs"].items()}
    values["earlier"] = tuple(map(tuple, values["earlier"]))
    return ShardTask(**values)
