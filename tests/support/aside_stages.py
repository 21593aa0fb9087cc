"""Four toy stages without Ray, two of which do not need each other: numbers -> left, right -> total.

`python -m tests.support.aside_stages RECIPE ...` runs them, left beside right. Files in the root steer the bodies: `meet` (left and right
each wait for the other), `refuse` and `hang` (the name of a stage), `full` (the cluster has no room), `chatter` (each prints on both streams). `made.txt` has one line per stage.
"""

import os
import sys
import time
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
from tests.support.waiting import PATIENCE_S

RECIPE = "name: toy\nembed: {towers: [{name: rn, model: RN50, pretrained: random}]}\n"
WAIT_S = PATIENCE_S


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages; they borrow the settings of plan, shift, evaluate and curate."""
    return [
        stage("numbers", make, settings=("plan",)),
        stage("left", make, ("numbers",), ("shift",), side_by_side=environment),
        stage("right", make, ("numbers",), ("evaluate",)),
        stage("total", make, ("left", "right"), ("curate",)),
    ]


def environment(recipe: Recipe) -> dict[str, str] | None:
    """Return what the process of left is given more, nothing when there is no room."""
    return None if (Path(recipe.root) / "full").exists() else {"TOY_ASIDE": "1"}


def make(context: Context) -> list[ShardTask]:
    """Commit one row, after what the files of the root ask for."""
    root, name = Path(context.recipe.root), context.stage.name
    (root / f"{name}.here").touch()
    if (root / "chatter").exists():
        print(f"chatter of {name} on stdout")
        os.write(2, f"chatter of {name} on stderr\n".encode())
    if _steer(root, "refuse") == name:
        raise InputError(f"{name} is odd; nothing is lost; hand in an even one")
    if _steer(root, "hang") == name:
        time.sleep(60)
    if (root / "meet").exists() and name in ("left", "right"):
        _await(root / f"{'right' if name == 'left' else 'left'}.here")
    task = context.task("all")
    if context.pending([task]):
        with (root / "made.txt").open("a") as log:
            log.write(f"{name}\n")
        with context.store.attempt(task) as attempt:
            attempt.write_table("rows", pa.table({"name": [name]}))
            attempt.commit(RowCounts(rows_in=1, kept=1))
    return [task]


def report(run: Run) -> None:
    """Write after each stage which stages the run has."""
    run.publish("report.html", " ".join(run.stages()).encode())


def _await(path: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not path.exists():
        if time.monotonic() > end:
            raise InputError(f"{path.name} never came; nothing is lost; run both at once")
        time.sleep(0.02)


def _steer(root: Path, name: str) -> str:
    path = root / name
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(command.main(stages, report))
