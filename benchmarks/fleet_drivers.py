"""The real drivers of a run of many shards, whose shards are committed as if workers had made them."""

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fleet_ray import through_actors, through_sums
from benchmarks.fleet_storage import FleetStorage
from corgi.flow import inspect
from corgi.flow.closing import close
from corgi.flow.context import Context
from corgi.flow.dag import Dag
from corgi.planning.stage import names_of
from corgi.settings.recipe import Recipe
from corgi.storage.disk import Disk
from corgi.tables import garbage
from corgi.tables.manifest import FileEntry, RowCounts, ShardManifest, StageManifest, sealed
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store
from pipelines.full import stages

ROWS = 10_000
TABLES = {
    "plan": ("plan",),
    "download": ("images", "captions", "ledger"),
    "embed": ("image_embeddings", "caption_embeddings"),
    "features": ("features",),
    "curate": ("selection",),
    "pack": ("rows",),
    "autoencoder": ("latents",),
}
"""Stages whose shards are those of the plan, in order, and their tables."""


class Cost(NamedTuple):
    """What one step asks of the driver."""

    cpu_s: float
    waited_s: float
    one_by_one_s: float
    """The same requests, each after the one before."""
    requests: int
    num_bytes: int
    peak_bytes: int
    """Of this process, with the double and what steps before it left."""


class Fleet:
    """A run of so many shards under a simulated root."""

    def __init__(self, folder: Path, num_shards: int) -> None:
        """Write a list of one row, which the plan's key names, and open the root."""
        self.num_shards = num_shards
        self.tasks: dict[str, ShardTask] = {}
        self.storage = FleetStorage(self._manifest)
        pq.write_table(pa.table({"url": ["http://a.example/1"], "caption": ["one"]}), folder / "list.parquet")
        tower = {"name": "rn", "model": "RN50", "pretrained": "random"}
        recipe = Recipe.model_validate(
            {
                "name": "fleet",
                "root": "s3://fleet/runs",
                "plan": {"input": [str(folder / "list.parquet")]},
                "embed": {"towers": [tower]},
            }
        )
        store = Store("s3://fleet/runs", storage=self.storage)
        run = Run(folder / "fleet", store, folder)
        self.dag = Dag(stages(recipe), recipe, store, run)
        self.closed: dict[str, StageManifest] = {}

    def cost(self, step: Callable[[], object]) -> Cost:
        """Return what a step costs; the double's own CPU time is taken off."""
        self.storage.begin()
        forget_peak()
        before = time.process_time()
        step()
        spent, asked = (
            max(0.0, time.process_time() - before - self.storage.account.making_s),
            self.storage.account,
        )
        waits = self.storage.waited_s, self.storage.one_by_one_s
        return Cost(spent, *waits, asked.requests, asked.num_bytes, peak_bytes())

    def plan_stage(self, name: str) -> list[ShardTask]:
        """Return the tasks of a stage after asking which are pending: all are."""
        context = self._context(name)
        tasks = self._tasks(context)
        _check(len(context.pending(tasks)), self.num_shards)
        self.tasks |= {f"{name}/{task.key}/manifest-0.json": task for task in tasks}
        return tasks

    def close_stage(self, name: str) -> None:
        """Ask again what is pending, as a second command does, and close the stage."""
        context = self._context(name)
        tasks = [task for path, task in self.tasks.items() if path.startswith(f"{name}/")]
        _check(len(context.pending(tasks)), 0)
        self.closed[name] = close(context, tasks)
        self.dag.run.record(name, self.closed[name])
        for task in tasks:
            del self.tasks[f"{name}/{task.key}/manifest-0.json"]  # no driver holds those of two stages

    def open_inputs(self, name: str) -> None:
        """Read what a later stage reads of this one: its index."""
        _check(len(self.dag.store.listed(self.closed[name])), self.num_shards)

    def open_for_shift(self) -> None:
        """Read what the shift stage reads before its tasks: which shards there are, and of which towers."""
        from corgi.shift.stage import shard_refs

        _check(len(shard_refs(self._context("shift"))), self.num_shards)

    def through_ray(self) -> None:
        """Have a pool of Ray's actors make every shard of a stage, of nothing, as each stage's shards are made."""
        _check(through_actors(self._tasks(self._context("plan"))), self.num_shards)

    def summed_by_ray(self) -> None:
        """Sum over all shards by the tree of tasks of the shift stage."""
        _check(through_sums(names_of(self.num_shards)), self.num_shards)

    def status(self) -> None:
        """Say what `--status` says; the runs' own records are on this machine's disk."""
        with mock.patch.object(garbage, "open_storage", return_value=Disk(self.dag.run.folder.parent)):
            _check(len(list(inspect.status(self.dag.run))), len(self.closed) + 1)

    def _context(self, name: str) -> Context:
        stage = next(stage for stage in self.dag.stages if stage.name == name)
        return self.dag.context(stage, self.closed)

    def _tasks(self, context: Context) -> list[ShardTask]:
        name = context.stage.name
        if name == "plan":
            payload = {"content": "list", "num_shards": self.num_shards}
            return [context.task(shard, payload) for shard in names_of(self.num_shards)]
        if name == "curate":
            whole = {other: context.inputs[other].digest for other in ("download", "embed")}
            return [context.task(shard.shard, whole, {"embed": [shard]}) for shard in context.listed("embed")]
        if name == "autoencoder":
            selected = {entry.shard: entry for entry in context.entries("curate")}
            return [
                context.task(
                    entry.shard, {"model": "m"}, {"download": [entry], "curate": [selected[entry.shard]]}
                )
                for entry in context.entries("download")
            ]
        return context.partitioned()

    def _manifest(self, path: str) -> bytes:
        task = self.tasks[path]
        return _sealed(task, tuple(TABLES[task.stage])).encode()


def _check(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{found} shards where {expected} were expected")


@lru_cache(maxsize=8)
def _files(tables: tuple[str, ...]) -> tuple[FileEntry, ...]:
    return tuple(
        FileEntry(
            table=name, name=f"abcdefabcdef-{name}.parquet", size=31_000_000, sha256="0" * 64, rows=ROWS
        )
        for name in tables
    )


def _sealed(task: ShardTask, tables: tuple[str, ...]) -> str:
    facts = {"planned": ROWS, "kept": ROWS, "bytes": 10**9, "formats": {"JPEG": ROWS}, "urls": ROWS}
    facts["towers"] = {"b32": {"dim": 512}}
    return sealed(
        ShardManifest(
            stage=task.stage,
            shard=task.shard,
            key=task.key,
            version=task.version,
            code=task.code,
            settings=task.settings,
            inputs=task.inputs,
            files=_files(tables),
            rows=RowCounts(rows_in=ROWS, kept=ROWS),
            facts=facts,
        )
    )


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the peak of this process's memory since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
