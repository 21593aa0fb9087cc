"""Three toy stages without Ray: seeds -> raw (slow, shard by shard) -> fine, which follows raw shard by shard.

`python -m tests.support.follow_stages RECIPE ...` runs them. Files in the root steer the bodies: `full` (no room for both), `meet` (raw's last
shard waits for the first of fine), `refuse` (fine, while it follows), `hang` (raw, after its second shard). `made.txt` has a line a committed shard: stage, shard, who made it.
"""

import os
import sys
import time
from pathlib import Path

import pyarrow as pa

from corgi.flow import command
from corgi.flow.context import Context
from corgi.flow.stage import Arriving, FollowingStage, Stage
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.store import ShardTask
from tests.support.stages import stage
from tests.support.waiting import PATIENCE_S

RECIPE = "name: toy\nembed: {towers: [{name: rn, model: RN50, pretrained: random}]}\n"
NUM_SHARDS, SLOW_S, WAIT_S = 4, 0.1, PATIENCE_S


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages; they borrow the settings of plan, download and shift."""
    return [
        stage("seeds", seeds, settings=("plan",)),
        stage("raw", raw, ("seeds",), ("download",), partition="seeds"),
        stage(
            *("fine", fine, ("raw",), ("shift",), FollowingStage),
            partition="raw",
            follow=follow,
            side_by_side=room,
        ),
    ]


def room(recipe: Recipe) -> dict[str, str] | None:
    """Return what the following process is given more, nothing when there is no room."""
    return None if (Path(recipe.root) / "full").exists() else {"TOY_FOLLOWER": "1"}


def seeds(context: Context) -> list[ShardTask]:
    """Commit the shards to be."""
    tasks = [context.task(f"{n:05d}", {"n": n}) for n in range(NUM_SHARDS)]
    for task in context.pending(tasks):
        _commit(context, task, task.payload["n"])
    return tasks


def raw(context: Context) -> list[ShardTask]:
    """Commit ten times each seed, slowly."""
    tasks = context.partitioned()
    for number, task in enumerate(context.pending(tasks)):
        if number == 2 and (Path(context.recipe.root) / "hang").exists():
            (Path(context.recipe.root) / "hanging").touch()
            time.sleep(60)
        if number == NUM_SHARDS - 1 and (Path(context.recipe.root) / "meet").exists():
            _await_follower(Path(context.recipe.root) / "made.txt")
        time.sleep(SLOW_S)
        _commit(context, task, 10 * _value(context, task, "seeds"))
    return tasks


def fine(context: Context) -> list[ShardTask]:
    """Commit each raw number and one."""
    tasks = context.partitioned()
    for task in context.pending(tasks):
        _commit(context, task, 1 + _value(context, task, "raw"))
    return tasks


def follow(context: Context, arriving: Arriving) -> None:
    """Do the same for what arrives."""
    more = True
    while more:
        tasks, more = arriving()
        for task in tasks:
            if (Path(context.recipe.root) / "refuse").exists():
                raise InputError("fine is odd; nothing is lost; hand in an even one")
            _commit(context, task, 1 + _value(context, task, "raw"))


def _await_follower(log: Path) -> None:
    end = time.monotonic() + WAIT_S
    while "fine" not in log.read_text():
        if time.monotonic() > end:
            raise InputError("nobody follows; nothing is lost; run both at once")
        time.sleep(0.05)


def _value(context: Context, task: ShardTask, stage: str) -> int:
    manifest = context.store.read_shard(task.inputs[stage][0])
    return context.store.read(manifest, "rows")["n"].to_pylist()[0]


def _commit(context: Context, task: ShardTask, value: int) -> None:
    with context.store.attempt(task) as attempt:
        attempt.write_table("rows", pa.table({"n": [value]}))
        attempt.commit(RowCounts(rows_in=1, kept=1))
    who = "follower" if os.environ.get("TOY_FOLLOWER") else "command"
    with (Path(context.recipe.root) / "made.txt").open("a") as log:
        log.write(f"{task.stage} {task.shard} {who}\n")


def report(run: Run) -> None:
    """Write after each stage which stages the run has."""
    run.publish("report.html", " ".join(run.stages()).encode())


if __name__ == "__main__":
    sys.exit(command.main(stages, report))
