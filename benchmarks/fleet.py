"""The drivers of a run of many shards over a simulated object store: `python -m benchmarks.fleet [--shards N]`.

Real: the plan's names and keys, listings, closings, indexes, what readers open, `--plan`, `--status`, and the host tables with the
fetchers' side of them (benchmarks/fleet_hosts.py). Simulated: the store (benchmarks/fleet_storage.py), whose waits are accounted and
not slept. Modelled: hours and dollars of what the shards' bodies do (corgi/budget). Not run: Ray's own bookkeeping per shard, and
every training; shards are committed as if workers had made them. It writes its parts of docs/scale.md.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.arms import fill_block
from benchmarks.figures import Figures
from benchmarks.fleet_hosts import host_load
from benchmarks.fleet_storage import REQUEST_S, FleetStorage
from corgi.budget.plan import between, costed
from corgi.budget.rates import load as load_rates
from corgi.flow import inspect, node_types
from corgi.flow.closing import close
from corgi.flow.context import Context
from corgi.flow.dag import Dag
from corgi.flow.selection import Selection
from corgi.planning.stage import names_of
from corgi.settings.recipe import Recipe
from corgi.settings.recipe import load as load_recipe
from corgi.storage.disk import Disk
from corgi.storage.many import MOST_AT_ONCE
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
}
"""Stages whose shards are those of the plan, in order, and their tables."""
FETCHERS, TABLES_OF_HOSTS = (64, 256, 512), (1, 2, 4)
HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "scale.md"
_HEAD = (
    "| | CPU of the driver, s | peak memory, MB | waits (modelled), s | requests | MB | rounds to open its tables | hours of its bodies (modelled) | dollars (modelled) |",
    "|---|---|---|---|---|---|---|---|---|",
)
MAX_CPU_S, MAX_BYTES, LIMITS_AT = 600.0, 2 * 10**9, 40_000
"""Of the driver of a stage of so many shards."""


class Cost(NamedTuple):
    """What one step asks of the driver."""

    cpu_s: float
    waited_s: float
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
        return Cost(spent, self.storage.waited_s, asked.requests, asked.num_bytes, peak_bytes())

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


def add_drivers(figures: Figures, num_shards: int) -> None:
    """Measure the driver of each stage of a run of so many shards, and write its part of docs/scale.md."""
    names = list(TABLES) if num_shards <= LIMITS_AT else list(TABLES)[:2]
    modelled = bodies(num_shards * ROWS)
    lines: list[str] = [*_HEAD]
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), num_shards)
        for name in names:
            made: list[ShardTask] = []
            planned = fleet.cost(lambda name=name, made=made: made.extend(fleet.plan_stage(name)))
            fleet.storage.commit(name, [task.key for task in made])
            closed = fleet.cost(lambda name=name: fleet.close_stage(name))
            opened = fleet.cost(lambda name=name: fleet.open_inputs(name))
            added = _added(figures, num_shards, f"{name}_driver", planned, closed)
            rounds = opened.waited_s / REQUEST_S
            figures.add(
                f"fleet_{name}_opened_rounds", rounds, "of 30 ms", f"<={2 * num_shards / MOST_AT_ONCE:g}"
            )
            lines.append(_line(name, added, f"{rounds:.1f}", modelled.get(name, "|")))
        again = fleet.cost(
            lambda: [
                step.done for step in fleet.dag.plan(Selection(last=names[-1])) if step.stage.name in names
            ]
        )
        figures.add("fleet_plan_of_a_finished_run", again.cpu_s + again.waited_s, "s", "<=3")
        lines.append(_line("`--plan` of the finished run", again, "", "|"))
        lines.append(
            _line("`--status`", _added(figures, num_shards, "status", fleet.cost(fleet.status)), "", "|")
        )
    told = f"Load of the machine's {os.cpu_count()} cores as this was written: {os.getloadavg()[0]:.1f}."
    fill_block(PAGE, f"fleet of {num_shards:,} shards", "\n".join([*lines, "", told, ""]))


def _added(figures: Figures, num_shards: int, name: str, *steps: Cost) -> Cost:
    """Return the steps of one driver together, and keep their figures."""
    cpu_s, waited_s, requests, num_bytes = (sum(column) for column in list(zip(*steps, strict=True))[:4])
    peak = max(step.peak_bytes for step in steps)
    has_limits = num_shards <= LIMITS_AT
    figures.add(f"fleet_{name}_cpu", cpu_s, "s", f"<={MAX_CPU_S:g}" if has_limits else "")
    figures.add(f"fleet_{name}_waits", waited_s, "s")
    figures.add(f"fleet_{name}_requests", requests, "requests")
    figures.add(f"fleet_{name}_bytes", num_bytes / 1e6, "MB")
    figures.add(
        f"fleet_{name}_peak_memory_with_the_double",
        peak / 1e6,
        "MB",
        f"<={MAX_BYTES / 1e6:g}" if has_limits else "",
    )
    return Cost(cpu_s, waited_s, int(requests), int(num_bytes), peak)


def _line(name: str, cost: Cost, rounds: str, modelled: str) -> str:
    return (
        f"| {name} | {cost.cpu_s:.1f} | {cost.peak_bytes / 1e6:,.0f} | {cost.waited_s:.1f} | {cost.requests:,} "
        f"| {cost.num_bytes / 1e6:,.1f} | {rounds} | {modelled} |"
    )


def bodies(num_rows: int) -> dict[str, str]:
    """Return the hours and the dollars of the bodies of each stage's shards, by laion-b32.yaml on cluster/aws.yaml."""
    recipe = load_recipe(
        HOME / "pipelines/recipes/laion-b32.yaml", [f"cluster.file={HOME / 'cluster/aws.yaml'}"]
    )
    cluster, rates = node_types.read(recipe.cluster.file or ""), load_rates(recipe.cluster.rates)
    found = {of.stage: of.found for of in costed(recipe, num_rows, cluster, rates)}
    return {
        stage: f"{between(of.hours)} | {between(of.dollars) if of.dollars else 'not known'}"
        for stage, of in found.items()
        if of is not None
    }


def add_host_tables(figures: Figures) -> None:
    """Measure the host tables and write their part of docs/scale.md, with the machine's load at the end."""
    lines = [
        "| fetchers | tables | CPU of the busiest table, s per s | requests to all tables per s | URLs per s and fetcher | at most 1 CPU-s per s |",
        "|---|---|---|---|---|---|",
    ]
    for fetchers, tables in product(FETCHERS, TABLES_OF_HOSTS):
        load = host_load(fetchers, tables)
        name = f"fleet_host_table_{fetchers}_fetchers_{tables}_tables"
        figures.add(name, load.busiest_cpu_s, "CPU-s per s", "<=1")
        verdict = "met" if load.busiest_cpu_s <= 1 else "missed"
        lines.append(
            f"| {fetchers} | {tables} | {load.busiest_cpu_s:.2f} | {load.requests:.0f} | {load.urls:.1f} | {verdict} |"
        )
    told = f"Load of the machine's {os.cpu_count()} cores as this was written: {os.getloadavg()[0]:.1f}."
    fill_block(PAGE, "host tables", "\n".join([*lines, "", told, ""]))


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shards",
        type=int,
        default=40_000,
        help="0: the host tables instead; over 40,000: the first two stages",
    )
    num_shards = parser.parse_args().shards
    figures = Figures("fleet", "pyarrow")
    if num_shards:
        add_drivers(figures, num_shards)
    else:
        add_host_tables(figures)
    figures.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
