"""The resources that stages need from a cluster, and whether it can ever provide them: work that fits on no node would wait silently."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from corgi.flow.node_types import NodeType, NodeTypes
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrainingSettings

GIB = 2**30


@dataclass(frozen=True)
class Demand:
    """Equal workers of one stage, and the settings that request them."""

    stage: str
    num_workers: int
    cpus: float
    gpus: float
    workers_setting: str = ""
    reservations: tuple[str, ...] = ()
    memory: float = 0.0
    """Bytes that one worker reserves; 0: it reserves no memory."""
    together: bool = False
    """Whether all workers must have started before any can work, as in a training."""

    @property
    def need(self) -> str:
        """The reservations of one worker, as text."""
        parts = [f"{self.cpus:g} CPU"]
        parts += [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"{self.memory / GIB:.1f} GiB of memory"] if self.memory else []
        return " and ".join(parts)


@runtime_checkable
class Pooled(Protocol):
    """A section of a stage that works on a pool of actors."""

    num_actors: int


@runtime_checkable
class Reserving(Protocol):
    """A section of a stage whose calls reserve memory; as many calls run at a time as there is room for."""

    task_memory: int


def demands(recipe: Recipe, stages: Iterable[str]) -> Iterator[Demand]:
    """Yield the demands of the named stages, as far as their sections of the recipe state them."""
    for stage in stages:
        section = getattr(recipe, stage, None)
        if isinstance(section, Pooled):
            yield _of_pool(stage, section)
        training = getattr(section, "training", None)
        if isinstance(training, TrainingSettings):
            yield _of_training(stage, training)
        if isinstance(section, Reserving):
            setting = f"{stage}.task_memory"
            yield Demand(stage, 1, 1.0, 0.0, reservations=(setting,), memory=float(section.task_memory))


def _of_pool(stage: str, section: Pooled) -> Demand:
    names = ("cpus_per_actor", "gpus_per_actor", "memory_per_actor")
    reservations = [name for name in names if hasattr(section, name)]
    return Demand(
        stage,
        section.num_actors,
        getattr(section, "cpus_per_actor", 1.0),
        getattr(section, "gpus_per_actor", 0.0),
        f"{stage}.num_actors",
        tuple(f"{stage}.{name}" for name in reservations),
        float(getattr(section, "memory_per_actor", 0)),
    )


def _of_training(stage: str, training: TrainingSettings) -> Demand:
    return Demand(
        stage,
        training.min_workers or training.num_workers,
        training.cpus_per_worker,
        float(training.use_gpu),
        f"{stage}.training.{'min_workers' if training.min_workers else 'num_workers'}",
        (f"{stage}.training.cpus_per_worker", f"{stage}.training.use_gpu"),
        together=True,
    )


def check(demand: Demand, cluster: NodeTypes) -> None:
    """Check that a cluster can meet a demand once it has grown to its full size.

    Raises:
        ClusterError: one worker fits on no node, or there are more workers than fit on all nodes; the message names the stage, its
            demand and what is missing.

    """
    held = cluster.num_workers(demand.cpus, demand.gpus, demand.memory)
    if held == 0:
        raise ClusterError(
            f"{demand.stage} cannot run: each of its workers reserves {demand.need}, and {_kinds(demand, cluster)}; committed work is safe; add a {'GPU' if demand.gpus else 'CPU'} node type with at least {demand.need}, or lower {' or '.join(demand.reservations) or 'what it reserves'}"
        )
    if held < demand.num_workers:
        fitting = [
            kind for kind in cluster.types if kind.num_workers(demand.cpus, demand.gpus, demand.memory)
        ]
        raise ClusterError(
            f"{demand.stage} cannot run: it needs {demand.num_workers} workers of {demand.need}, but {cluster.source} has room for at most {held} ({_listed(fitting)}); committed work is safe; allow more nodes, or set {demand.workers_setting} to {held} or less"
        )


def check_one(demand: Demand, cluster: NodeTypes) -> None:
    """Check that one worker fits, or all of them if they must start together; others may wait.

    Raises:
        ClusterError: they fit on no node.

    """
    check(demand if demand.together else replace(demand, num_workers=1), cluster)


def _kinds(demand: Demand, cluster: NodeTypes) -> str:
    listed = _listed(cluster.types, bool(demand.memory))
    return f"no node of {cluster.source} that takes such work has that ({listed})"


def _listed(types: Iterable[NodeType], with_memory: bool = False) -> str:
    return ", ".join(
        f"{kind.max_nodes} x {kind.name} with {kind.cpus:g} CPU"
        + (f" and {kind.gpus:g} GPU" if kind.gpus else "")
        + (f" and {kind.memory / GIB:.1f} GiB" if kind.memory and with_memory else "")
        for kind in types
    )
