"""The part of a cluster that a stage can use: nodes, cores, GPUs, network, and their cost per hour."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from corgi.budget.rates import Interval, Rates, exactly
from corgi.flow.demand import Demand, demands
from corgi.flow.node_types import NodeType, NodeTypes
from corgi.settings.recipe import Recipe


@dataclass(frozen=True)
class Machines:
    """The nodes for one stage's workers."""

    names: tuple[str, ...]
    num_nodes: int
    cpus: float
    """CPUs that the workers reserve."""
    peak_flops: float | None
    """Peak FLOP/s of the GPUs that the workers reserve; None if a GPU is unknown."""
    dollars_per_hour: Interval | None
    """None if a price is unknown."""


def demand_of(recipe: Recipe, stage: str, cluster: NodeTypes) -> Demand:
    """Return a stage's workers, and of several kinds those with the most GPUs; curate and shift run as many calls at a time as there is room for."""
    alone = Demand(stage, 1, 1.0, 0.0)
    found = max(demands(recipe, [stage]), key=lambda asked: asked.num_workers * asked.gpus, default=alone)
    if stage not in ("curate", "shift"):
        return found
    return replace(found, num_workers=max(1, cluster.num_workers(found.cpus, 0.0, found.memory)))


def of_stage(demand: Demand, cluster: NodeTypes, rates: Rates) -> Machines:
    """Return the smallest number of nodes for a stage's workers, in the order in which the autoscaler starts them: spot first."""
    taken = list(_taken(demand, cluster))
    prices = [_price(kind, rates) for kind, _ in taken]
    flops = [rates.peak_flops(kind.machine or kind.name) for kind, _ in taken]
    total = exactly(0.0)
    for (_, count), price in zip(taken, prices, strict=True):
        total += (price or exactly(0.0)) * count
    gpus = sum(kind.gpus * count for kind, count in taken)
    known = [peak * count * kind.gpus for (kind, count), peak in zip(taken, flops, strict=True) if peak]
    reserved = min(1.0, demand.num_workers * demand.gpus / gpus) if gpus else 0.0
    return Machines(
        names=tuple(f"{count} x {kind.name}" for kind, count in taken),
        num_nodes=sum(count for _, count in taken),
        cpus=min(sum(kind.cpus * count for kind, count in taken), demand.num_workers * demand.cpus),
        peak_flops=sum(known) * reserved if len(known) == len(taken) and known else None,
        dollars_per_hour=None if None in prices or not taken else total,
    )


def _taken(demand: Demand, cluster: NodeTypes) -> Iterator[tuple[NodeType, int]]:
    left = demand.num_workers
    for kind in sorted(cluster.types, key=lambda kind: not kind.is_spot):
        each = kind.num_workers(demand.cpus, demand.gpus)
        count = min(kind.max_nodes, -(-left // each)) if each else 0
        if count > 0:
            left -= count * each
            yield kind, count


def _price(kind: NodeType, rates: Rates) -> Interval | None:
    """Return dollars per hour of a node; a group without a machine name is looked up by its own name, and its price is used as it is."""
    price = rates.price(kind.machine or kind.name)
    if price is None or not kind.is_spot or not kind.machine:
        return price
    return price * rates["spot_share_of_price"]
