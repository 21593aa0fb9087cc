"""The drivers of a run of many shards over a simulated object store: `python -m benchmarks.fleet [--shards N]`.

Real: the plan's names and keys, listings, closings, indexes, what readers open, `--plan`, `--status`, Ray's bookkeeping of so many
shards (benchmarks/fleet_ray.py), the host tables with the fetchers' side of them (benchmarks/fleet_hosts.py), and with `--bodies` what
32 sampled shards of each stage do (benchmarks/fleet_bodies.py). Simulated: the store (benchmarks/fleet_storage.py), whose waits are
accounted and not slept. Modelled: hours and dollars by the rates of corgi/budget. Trainings are in `python -m benchmarks.feed`.
It writes its parts of docs/scale.md.
"""

import argparse
import os
import tempfile
import time
from itertools import product
from pathlib import Path

from benchmarks.arms import fill_block
from benchmarks.figures import Figures
from benchmarks.fleet_drivers import ROWS, TABLES, Cost, Fleet
from benchmarks.fleet_hosts import host_load
from benchmarks.fleet_storage import REQUEST_S
from corgi.budget.machines import Machines
from corgi.budget.plan import between, costed
from corgi.budget.rates import Rates
from corgi.budget.rates import load as load_rates
from corgi.flow import node_types
from corgi.flow.cluster import connect, shutdown
from corgi.flow.selection import Selection
from corgi.settings.recipe import Recipe
from corgi.settings.recipe import load as load_recipe
from corgi.storage.many import MOST_AT_ONCE
from corgi.tables.store import ShardTask

FETCHERS, TABLES_OF_HOSTS = (64, 256, 512), (1, 2, 4)
HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "scale.md"
_HEAD = (
    "| | CPU of the driver, s | peak memory, MB | waits (modelled), s | one by one, as before, s | requests | MB | rounds to open its tables | hours of its bodies (modelled) | dollars (modelled) |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
MAX_CPU_S, MAX_BYTES, LIMITS_AT = 600.0, 2 * 10**9, 40_000
"""Of the driver of a stage of so many shards."""
ON_GPUS = ("embed", "autoencoder")


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
        if "curate" in names:
            shift = _added(figures, num_shards, "shift_driver", fleet.cost(fleet.open_for_shift))
            lines.append(_line("shift", shift, "", modelled["shift"]))
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


def add_ray(figures: Figures, num_shards: int) -> None:
    """Measure Ray's bookkeeping of so many shards in the driver, and write its part of docs/scale.md."""
    lines = ["| | CPU of the driver, s | peak memory, MB | shards per s |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), num_shards)
        connect(fleet.dag.recipe)
        for name, step in (
            ("pool of actors", fleet.through_ray),
            ("tree of sums of the shift stage", fleet.summed_by_ray),
        ):
            begun = time.perf_counter()
            cost = fleet.cost(step)
            rate = num_shards / (time.perf_counter() - begun)
            figures.add(f"fleet_ray_{name}_cpu", cost.cpu_s, "s", f"<={MAX_CPU_S:g}")
            figures.add(
                f"fleet_ray_{name}_peak_memory", cost.peak_bytes / 1e6, "MB", f"<={MAX_BYTES / 1e6:g}"
            )
            lines.append(f"| {name} | {cost.cpu_s:.1f} | {cost.peak_bytes / 1e6:,.0f} | {rate:.0f} |")
        shutdown()
    told = f"Load of the machine's {os.cpu_count()} cores as this was written: {os.getloadavg()[0]:.1f}."
    fill_block(PAGE, f"Ray for {num_shards:,} shards", "\n".join([*lines, "", told, ""]))


def _added(figures: Figures, num_shards: int, name: str, *steps: Cost) -> Cost:
    """Return the steps of one driver together, and keep their figures."""
    cpu_s, waited_s, one_by_one_s, requests, num_bytes = (
        sum(column) for column in list(zip(*steps, strict=True))[:5]
    )
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
    return Cost(cpu_s, waited_s, one_by_one_s, int(requests), int(num_bytes), peak)


def _line(name: str, cost: Cost, rounds: str, modelled: str) -> str:
    return (
        f"| {name} | {cost.cpu_s:.1f} | {cost.peak_bytes / 1e6:,.0f} | {cost.waited_s:.1f} | {cost.one_by_one_s:,.0f} | {cost.requests:,} "
        f"| {cost.num_bytes / 1e6:,.1f} | {rounds} | {modelled} |"
    )


def bodies(num_rows: int) -> dict[str, str]:
    """Return the hours and the dollars of the bodies of each stage's shards, by laion-b32.yaml on cluster/aws.yaml."""
    recipe, cluster, rates = _priced()
    found = {of.stage: of.found for of in costed(recipe, num_rows, cluster, rates)}
    return {
        stage: f"{between(of.hours)} | {between(of.dollars) if of.dollars else 'not known'}"
        for stage, of in found.items()
        if of is not None
    }


def _priced() -> tuple[Recipe, node_types.NodeTypes, Rates]:
    """Return laion-b32.yaml, cluster/aws.yaml and the rates."""
    named = f"cluster.file={HOME / 'cluster/aws.yaml'}"
    recipe = load_recipe(HOME / "pipelines/recipes/laion-b32.yaml", [named])
    return recipe, node_types.read(recipe.cluster.file or ""), load_rates(recipe.cluster.rates)


def add_bodies(figures: Figures) -> None:
    """Run the bodies of sampled shards and write their part of docs/scale.md."""
    from benchmarks.fleet_bodies import all_bodies  # with torch, which would be in the memory of the drivers

    machines = {of.stage: of.machines for of in costed(_priced()[0], LIMITS_AT * ROWS, *_priced()[1:])}
    lines = [
        "| | rows of a sampled shard | CPU-s per shard of 10,000 rows | requests | MB read | MB written | CPU-hours at 40,000 shards | hours | dollars | hours at 500,000 | dollars |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, body in all_bodies().items():
        figures.add(f"fleet_body_{name}", body.cpu_s, "CPU-s per shard")
        of_gpu = "on GPUs: modelled above | | |" if name in ON_GPUS else ""
        told = of_gpu or " | ".join(
            _priced_hours(body.cpu_s * count / 3600, machines.get(name) or machines["curate"])
            for count in (LIMITS_AT, 500_000)
        )
        lines.append(
            f"| {name} | {body.rows:,} | {body.cpu_s:.2f} | {body.requests:.0f} | {body.bytes_read / 1e6:.1f} "
            f"| {body.bytes_written / 1e6:.1f} | {body.cpu_s * LIMITS_AT / 3600:,.1f} | {told} |"
        )
    told = f"Load of the machine's {os.cpu_count()} cores as this was written: {os.getloadavg()[0]:.1f}."
    fill_block(PAGE, "bodies", "\n".join([*lines, "", told, ""]))


def _priced_hours(cpu_hours: float, machines: Machines) -> str:
    """Return the hours on so many cores and their dollars, as two cells."""
    hours = cpu_hours / machines.cpus
    rate = machines.dollars_per_hour
    return f"{hours:.2g} | {between(rate * hours) if rate else 'not known'}"


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
    parser.add_argument("--bodies", action="store_true", help="the bodies of 32 shards instead")
    parser.add_argument("--ray", action="store_true", help="Ray's bookkeeping of so many shards instead")
    asked = parser.parse_args()
    num_shards, figures = asked.shards, Figures("fleet", "pyarrow")
    if asked.ray:
        add_ray(figures, num_shards)
    elif asked.bodies:
        add_bodies(figures)
    elif num_shards:
        add_drivers(figures, num_shards)
    else:
        add_host_tables(figures)
    figures.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
