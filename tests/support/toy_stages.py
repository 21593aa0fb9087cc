"""A pipeline of three toy stages without Ray: numbers -> squares (shard by shard) -> total.

`python -m tests.support.toy_stages RECIPE ...` runs it and says which heavy modules it imported. Each shard made is a line of
`made.txt`. Files in the folder (root, or scratch where root is an object store) steer the bodies: `stop` (after how many
shards to interrupt), `wait`, `pause` (seconds a shard), `skip`, `refuse`, `salt`, `outside`.
"""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from corgi.flow import command
from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.store import ShardTask
from tests.support.stages import stage

RECIPE = "name: toy\nembed: {towers: [{name: rn, model: RN50, pretrained: random}]}\n"


def stages(recipe: Recipe) -> list[Stage]:
    """Return the three stages; they borrow the settings of plan, download and shift."""
    return [
        stage("numbers", numbers, settings=("plan",), fingerprint=outside),
        stage(
            "squares",
            squares,
            ("numbers",),
            ("download",),
            partition="numbers",
            title="Squares",
            intro="Of numbers.",
        ),
        stage("total", total, ("squares",), ("shift",)),
    ]


def folder_of(recipe: Recipe) -> Path:
    """Return the folder on a disk of the steering files."""
    return Path(recipe.scratch or recipe.root)


def outside(recipe: Recipe) -> str:
    """Return what the numbers depend on outside the store."""
    return _steer(folder_of(recipe), "outside") or "nothing"


def numbers(context: Context) -> list[ShardTask]:
    """Commit four shards of three numbers."""
    tasks = [context.task(f"{shard:05d}", {"start": 3 * shard}) for shard in range(4)]
    for task in _made(context, tasks):
        salt = _steer(folder_of(context.recipe), "salt")
        start = task.payload["start"] + (100 if salt == task.shard else 0)
        _commit(context, task, [start, start + 1, start + 2])
    return tasks


def squares(context: Context) -> list[ShardTask]:
    """Commit the squares of each shard of numbers."""
    tasks = context.partitioned()
    for task in _made(context, tasks):
        manifest = context.store.read_shard(task.inputs["numbers"][0])
        _commit(context, task, [n**2 for n in context.store.read(manifest, "rows")["n"].to_pylist()])
    return tasks


def total(context: Context) -> list[ShardTask]:
    """Commit the sum of all squares."""
    tasks = context.partitioned()
    for task in _made(context, tasks):
        tables = [
            context.store.read(manifest, "rows")
            for manifest in context.store.shards(context.inputs["squares"])
        ]
        _commit(context, task, [sum(pa.concat_tables(tables)["n"].to_pylist())])
    return tasks


def report(run: Run) -> None:
    """Write after each stage which stages the run has."""
    run.publish("report.html", " ".join(run.stages()).encode())


def _made(context: Context, tasks: list[ShardTask]) -> Iterator[ShardTask]:
    """Yield the pending tasks, each noted as made, unless a file says to stop, wait or skip at one."""
    root, name = folder_of(context.recipe), context.stage.name
    if _steer(root, "refuse") == name:
        raise InputError("the numbers are odd; nothing is lost; hand in even ones")
    for count, task in enumerate(context.pending(tasks)):
        place = f"{name} {count}"
        if _steer(root, "stop") == place:
            signal.raise_signal(signal.SIGINT)
        if _steer(root, "wait") == place:
            (root / "waiting").touch()
            time.sleep(30)
        if _steer(root, "skip") == place:
            continue
        time.sleep(float(_steer(root, "pause") or 0))
        yield task
        with (root / "made.txt").open("a") as log:
            log.write(f"{name}/{task.shard}\n")


def _commit(context: Context, task: ShardTask, values: list[int]) -> None:
    with context.store.attempt(task) as attempt:
        attempt.write_table("rows", pa.table({"n": values}))
        attempt.commit(
            RowCounts(rows_in=len(values), kept=len(values)),
            facts={"start": values[0]},
            timings={"seconds": time.time()},
        )


def _steer(root: str | Path, name: str) -> str:
    path = Path(root) / name
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    code = command.main(stages, report)
    print(
        "imported:",
        *(name for name in ("ray", "torch", "transformers", "deepspeed", "wandb") if name in sys.modules),
    )
    sys.exit(code)
