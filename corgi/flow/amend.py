"""New versions of committed shards: rows fetched again, or rows taken down. Only the affected shards are made again."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyarrow has no types

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NotRequired, TypedDict

from corgi.flow.closing import close
from corgi.flow.context import Context
from corgi.flow.dag import Dag
from corgi.flow.stage import RevisableStage, Stage
from corgi.settings.errors import InputError, SettingsError
from corgi.tables.manifest import StageManifest
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask

Say = Callable[[str], None]
_UID, _HASH = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


def reasons_of(text: str) -> tuple[str, ...]:
    """Return the reasons in `reason=timeout,dns`.

    Raises:
        SettingsError: it does not have that form, or names an unknown reason.

    """
    key, _, names = text.partition("=")
    chosen = tuple(name for name in names.split(",") if name)
    wrong = [name for name in chosen if name not in list(Reason)]
    if key != "reason" or not chosen or wrong:
        told = f"no reason {wrong[0]!r}" if wrong else f"{text!r} is not reason=NAME,NAME"
        raise SettingsError(
            f"--retry-failed: {told}; nothing was started; the reasons are {', '.join(Reason)}"
        )
    return chosen


def retry_failed(dag: Dag, reasons: Sequence[str], say: Say) -> int:
    """Publish the next version of every shard with rows rejected for these reasons; return the number of shards.

    A shard whose next version an interrupted retry has already published is not fetched again.

    Raises:
        InputError: no stage that can retry is complete.

    """
    retried, able = 0, False
    for stage, context, done in _closed(dag):
        if not isinstance(stage, RevisableStage) or not stage.inputs:
            continue
        able = True
        tasks = context.partitioned()
        newest = dag.store.committed(stage.name, [task.key for task in tasks])
        wanted: list[ShardTask] = []
        renewed = False
        for task, shard in zip(tasks, dag.store.each_listed(done), strict=True):
            if newest[task.key] != shard.path:
                renewed = True
            elif set(reasons) & set(shard.rows.rejected):
                wanted.append(amending(task, {"before": shard.path, "retry": list(reasons)}))
        if wanted:
            say(
                f"{stage.name}: {len(wanted)} of {len(tasks)} shards have rows rejected for {', '.join(reasons)}"
            )
            stage.revise(context, wanted)
        if wanted or renewed:
            dag.run.record(stage.name, close(context, tasks, before=done))
        retried += len(wanted)
    if not able:
        raise InputError(
            "--retry-failed: no stage with rows to retry is complete; nothing is lost; run the recipe first"
        )
    return retried


class Amendment(TypedDict):
    """How the next version of a shard is made: from which manifest, and with which change."""

    before: str
    retry: NotRequired[list[str]]
    """Rows rejected for one of these reasons are fetched again."""
    take_down: NotRequired[bool]
    """Rows that have since been taken down are removed."""


def amending(task: ShardTask, amendment: Amendment) -> ShardTask:
    """Return a task that makes a shard's next version under the same key."""
    return dataclasses.replace(task, payload={**task.payload, "amend": amendment})


def _closed(dag: Dag) -> list[tuple[Stage, Context, StageManifest]]:
    """Return the stages that are complete for their current inputs."""
    closed: dict[str, StageManifest] = {}
    found: list[tuple[Stage, Context, StageManifest]] = []
    for stage in dag.stages:
        if all(name in closed for name in stage.inputs):
            context = dag.context(stage, closed)
            done = dag.store.stage(stage.name, context.key)
            if done is not None:
                closed[stage.name] = done
                found.append((stage, context, done))
    return found
