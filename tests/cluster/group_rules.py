"""Rules of node types that hold whatever starts the nodes: labels, priority, idle time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corgi.flow.placement import WORK_LABEL, selector

MARKET_LABEL = "ray.io/market-type"
KNOWN_LABELS = {WORK_LABEL: {"cpu", "gpu", "none"}, MARKET_LABEL: {"spot", "on-demand"}}


@dataclass(frozen=True)
class Group:
    """A node type as a launcher file or a RayJob declares it."""

    name: str
    cpus: float
    gpus: float
    labels: dict[str, str]
    priority: int | None
    idle_timeout_s: float | None
    is_spot: bool
    is_head: bool = False


def faults(groups: Sequence[Group]) -> list[str]:
    """Return one line per broken rule."""
    found = [line for group in groups for line in (*_labels(group), *_idle_time(group))]
    return [*found, *_selected(groups), *_priorities(groups)]


def _labels(group: Group) -> Iterator[str]:
    for key in KNOWN_LABELS.keys() - group.labels.keys():
        yield f"{group.name} has no label {key}"
    for key, value in group.labels.items():
        if value not in KNOWN_LABELS.get(key, set()):
            yield f"{group.name} has the unknown label {key}={value}"
    work, market = group.labels.get(WORK_LABEL), group.labels.get(MARKET_LABEL)
    if work == "cpu" and group.gpus:
        yield f"{group.name} is labelled for CPU work and has GPUs"
    if work == "gpu" and not group.gpus:
        yield f"{group.name} is labelled for GPU work and has no GPUs"
    if (work == "none") is not group.is_head:
        yield f"{group.name} has {WORK_LABEL}={work}; only the head has none"
    if market in KNOWN_LABELS[MARKET_LABEL] and (market == "spot") is not group.is_spot:
        yield f"{group.name} is labelled {market} and is {'spot' if group.is_spot else 'on demand'}"


def _idle_time(group: Group) -> Iterator[str]:
    if not group.is_head and not 60 <= (group.idle_timeout_s or 0) <= 900:
        yield f"{group.name} is idle {group.idle_timeout_s} s before it is returned, not 60 to 900"


def _selected(groups: Sequence[Group]) -> Iterator[str]:
    for key, value in selector(0).items():
        if not any(group.labels.get(key) == value.removeprefix("!") for group in groups):
            yield f"no node type has the label {key}={value.removeprefix('!')} that a selector names"


def _priorities(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        twins = [
            other
            for other in groups
            if (other.cpus, other.gpus) == (group.cpus, group.gpus) and other.is_spot is not group.is_spot
        ]
        if group.priority is not None and not twins:
            yield f"{group.name} has a priority and no twin of its shape on the other market"
        if group.gpus and not group.is_spot and not twins:
            yield f"{group.name} has GPUs on demand and no spot twin"
        for twin in twins if group.is_spot and group.gpus else []:
            if (group.priority or 0) <= (twin.priority or 0):
                yield f"{group.name} is on spot and does not come before {twin.name}"
