"""Makes shards as their tasks arrive, on actors that are restarted if they are lost."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# Ray leaves types out of what it returns

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from corgi.flow import failures as failing
from corgi.flow.cluster import cause
from corgi.flow.failures import TRIES_OF_A_WORKER, Failure, explained, lost
from corgi.flow.placement import selector
from corgi.flow.shards import LEAST_TO_STOP, LOST_WORKERS, OWN_CHILDREN, Maker, Pool, ShardMaker
from corgi.tables.store import ShardTask


def make_arriving(
    maker: Callable[..., Maker],
    arguments: Mapping[str, object],
    arriving: Callable[[], tuple[Sequence[ShardTask], bool]],
    pool: Pool,
    label: str,
) -> None:
    """Make shards on the same kind and number of actors as `make_shards`, each shard as soon as its task arrives.

    `arriving` returns new tasks and whether more may come; Ray Data could only take the tasks that are known when it starts. A lost
    actor is restarted. A shard that fails is left to `make_shards`, which runs afterwards.

    Raises:
        CorgiError: the maker cannot be built, or too many shards failed in succession.

    """
    import ray

    remote: Any = ray.remote  # its overloads accept no options from a dict
    kind = remote(
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        label_selector=selector(pool.gpus),
        runtime_env=OWN_CHILDREN,
        max_restarts=-1,
        max_task_retries=LOST_WORKERS,
        max_concurrency=pool.shards_at_once,
        **pool.demand,
    )(ShardMaker)
    actors = [
        kind.remote(maker, arguments, TRIES_OF_A_WORKER, failing.WAIT_S) for _ in range(pool.num_actors)
    ]
    idle: list[Any] = actors * pool.shards_at_once
    waiting: list[ShardTask] = []
    busy: dict[Any, tuple[Any, ShardTask]] = {}
    more, in_succession = True, list[Failure]()
    while more or waiting or busy:
        if more and len(waiting) < len(actors):  # reading a large store takes seconds
            tasks, more = arriving()
            waiting += tasks
        while waiting and idle:
            actor, task = idle.pop(), waiting.pop(0)
            busy[actor.__call__.remote({"task": [json.dumps(dataclasses.asdict(task))]})] = actor, task
        for made in ray.wait(list(busy), timeout=0.5)[0] if busy else ():
            actor, task = busy.pop(made)
            idle.append(actor)
            failure = _failure(made, task)
            in_succession = [*in_succession, failure] if failure is not None else []
        if len(in_succession) >= max(LEAST_TO_STOP, 2 * pool.num_actors):
            raise explained(label, in_succession, len(in_succession), stopped=True)


def _failure(made: Any, task: ShardTask) -> Failure | None:
    """Return why an actor could not make a shard; None if it could.

    Raises:
        CorgiError: the actor could not be built.

    """
    import ray
    from ray.exceptions import RayError

    try:
        made_row: Any = ray.get(made)
    except RayError as error:
        if (known := cause(error)) is not None:
            raise known from error
        return lost(task.shard, 1 + LOST_WORKERS)
    told = made_row["failure"][0]
    return Failure(**json.loads(told)) if told else None
