"""What --plan prints about a run's budget: rows, bytes, requests, hours and dollars of each stage, as intervals."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from corgi.budget.estimate import REMEDIES, Estimate, bounds, estimate, gpu_waits
from corgi.budget.machines import Machines, demand_of, of_stage
from corgi.budget.memory import check_memory
from corgi.budget.rates import Interval, Rates, exactly, load
from corgi.budget.work import Work, works
from corgi.flow.demand import Demand, check
from corgi.flow.node_types import NodeTypes, read
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import Recipe
from corgi.storage.paths import expand, is_local

ROWS_UNREAD = 1_000_000
"""Number of rows that is assumed if the list has not been read."""
_WORTH_TELLING = 0.05
"""A line is printed if a GPU waits for at least this share of its time."""


def lines(recipe: Recipe, unfinished: list[str], planned_rows: int | None) -> Iterator[str]:
    """Yield the budget of the unfinished stages; nothing if no cluster file is named.

    `planned_rows` is the number of rows that the plan stage kept, None if it has not run: then the rows of Parquet lists are read from their footers.

    Raises:
        InputError: the cluster file or the table of rates cannot be read.
        ClusterError: no GPU of the file has the memory for a worker's state of a training.

    """
    if not recipe.cluster.file:
        return
    cluster, rates = read(recipe.cluster.file), load(recipe.cluster.rates)
    check_memory(recipe, unfinished, cluster, rates)
    num_rows = planned_rows if planned_rows is not None else listed_rows(recipe)
    yield (
        f"budget for {num_rows or ROWS_UNREAD:,} rows on {recipe.cluster.file}"
        + ("" if num_rows else " (the list is not read yet: multiply by its millions)")
    )
    total, partial = exactly(0.0), False
    for stage, work, asked, machines, flight, found in costed(
        recipe, num_rows or ROWS_UNREAD, cluster, rates
    ):
        if stage not in unfinished:
            continue
        if found is None:
            partial = True
            yield f"{stage:<12} {between(work.rows)} rows; hours not known on {', '.join(machines.names) or 'a cluster without such nodes'}"
            continue
        total, partial = total + (found.dollars or exactly(0.0)), partial or found.dollars is None
        yield f"{stage:<12} {_told(work, found)} on {', '.join(machines.names) or 'no node of the file'}"
        yield f"{'':<12}   held up by {found.bottleneck}; add first {REMEDIES[found.bottleneck]}"
        if refused := refusal(asked, cluster):
            yield f"{'':<12}   not to be had: {refused}"
        if stage == "embed" and asked.gpus:
            yield from _feeding(asked, bounds(work, machines, flight, rates), cluster)
        if work.unknown:
            yield f"{'':<12}   at least that: not counted are {', '.join(work.unknown)}"
    yield f"{'together':<12} {between(total)} dollars for these stages" + (
        "; stages without a known time or price are not included" if partial else ""
    )
    yield "the training of a tower, and latent spaces that are loaded from elsewhere, are not counted; rates and prices with source and date are in corgi/budget/rates.yaml"


class Costed(NamedTuple):
    """A stage's work, its workers and machines, and its estimate; None if nothing is known about it."""

    stage: str
    work: Work
    asked: Demand
    machines: Machines
    in_flight: float
    found: Estimate | None


def costed(recipe: Recipe, num_rows: int, cluster: NodeTypes, rates: Rates) -> Iterator[Costed]:
    """Yield the work and estimate of each stage for `num_rows` rows."""
    for stage, work in works(recipe, num_rows, rates).items():
        asked = demand_of(recipe, stage, cluster)
        machines = of_stage(asked, cluster, rates)
        in_flight = float(asked.num_workers * recipe.download.connections)
        yield Costed(stage, work, asked, machines, in_flight, estimate(work, machines, in_flight, rates))


def refusal(asked: Demand, cluster: NodeTypes) -> str | None:
    """Return the error that a run would raise at its start on this cluster; None if it would start."""
    try:
        check(asked, cluster)
    except ClusterError as error:
        return str(error)
    return None


def _feeding(asked: Demand, seconds: Mapping[str, Interval], cluster: NodeTypes) -> Iterator[str]:
    """Yield how long a GPU waits for decoded pictures, and the CPUs that would feed it; nothing if it hardly waits."""
    waits = gpu_waits(seconds)
    if waits is None or waits.high < _WORTH_TELLING:
        return
    needed = math.ceil(asked.cpus * (seconds["CPU"] / seconds["GPU"]).high)
    fitting = [kind for kind in cluster.types if kind.num_workers(asked.cpus, asked.gpus)]
    room = max((int(kind.cpus * asked.gpus / kind.gpus) for kind in fitting), default=needed)
    change = f"set embed.cpus_per_actor={min(needed, room)}" if room > asked.cpus else ""
    more = f"nodes with {needed} CPUs for each GPU would feed it" if needed > room else ""
    low, high = (f"{bound:.0%}" for bound in (waits.low, waits.high))
    share = high if low == high else f"{low} to {high}"
    yield f"{'':<12}   the GPU waits {share} of the time for decoded pictures; {'; '.join(filter(None, (change, more)))}"


def listed_rows(recipe: Recipe) -> int | None:
    """Return the number of rows of Parquet lists on this machine, from their footers only; None if any other list is named."""
    import pyarrow.parquet as pq

    if not all(is_local(given) for given in recipe.plan.input):
        return None
    found = [expand(given) for given in recipe.plan.input]
    paths = {path for each in found for path in each}
    if not found or not all(found) or not all(path.endswith(".parquet") for path in paths):
        return None
    return sum(pq.read_metadata(path).num_rows for path in paths)


def _told(work: Work, found: Estimate) -> str:
    parts = [f"{between(work.rows)} rows"]
    if work.received_bytes.high:
        parts.append(f"{between(work.rows)} requests, {between(work.received_bytes / 1e9)} GB in")
    if work.written_bytes.high:
        parts.append(f"{between(work.written_bytes / 1e9)} GB written")
    if work.storage_requests.high:
        parts.append(f"{between(work.storage_requests)} requests to storage")
    parts.append(f"{between(found.hours)} h")
    parts.append("price not known" if found.dollars is None else f"{between(found.dollars)} dollars")
    return ", ".join(parts)


def between(value: Interval) -> str:
    """Return an interval as text."""
    low, high = (_short(bound) for bound in (value.low, value.high))
    return low if low == high else f"{low} to {high}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
