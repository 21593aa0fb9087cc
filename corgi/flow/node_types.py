"""The node types of a cluster: as a file in cluster/ declares them, or those of its current nodes."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import yaml

from corgi.flow.placement import WORK_LABEL
from corgi.settings.errors import InputError

MARKET_LABEL = "ray.io/market-type"
_MACHINE_KEYS = ("InstanceType", "machineType")
_DEVICE = "nvidia.com/gpu"
_RESERVABLE = 0.7
"""Share of a node's memory that calls can reserve in Ray; the rest is for its object store."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class _Launched(TypedDict):
    """The parts of an entry of `available_node_types` in a launcher file that are read."""

    resources: dict[str, float]
    node_config: dict[str, object]
    max_workers: NotRequired[int]
    labels: NotRequired[dict[str, str] | None]


class _Resources(TypedDict):
    limits: dict[str, str | float]


class _Container(TypedDict):
    resources: _Resources


class _PodSpec(TypedDict):
    containers: list[_Container]


class _Pod(TypedDict):
    spec: _PodSpec


class _Group(TypedDict):
    """The parts of a RayCluster's group of pods that are read."""

    template: _Pod
    rayStartParams: NotRequired[dict[str, str] | None]
    labels: NotRequired[dict[str, str] | None]


class _WorkerGroup(_Group):
    groupName: str
    maxReplicas: int


class _ClusterSpec(TypedDict):
    """The parts of a RayCluster, which a RayJob also contains, that are read."""

    headGroupSpec: _Group
    workerGroupSpecs: list[_WorkerGroup]


@dataclass(frozen=True)
class NodeType:
    """Equal nodes of a cluster: the resources of one, and how many there can be."""

    name: str
    cpus: float
    gpus: float
    max_nodes: int
    labels: dict[str, str] = field(default_factory=dict[str, str])
    machine: str = ""
    """The cloud's name of the machine; empty if the file does not state it."""
    memory: float = 0.0
    """Bytes that calls on one node can reserve; 0 if the file does not state it."""

    @property
    def is_spot(self) -> bool:
        """Return whether the cloud may take a node back."""
        return self.labels.get(MARKET_LABEL) == "spot"

    def num_workers(self, cpus: float, gpus: float, memory: float = 0.0) -> int:
        """Return how many workers with these reservations fit on one node; memory is only considered if it is known."""
        if not gpus and self.labels.get(WORK_LABEL) == "gpu":
            return 0
        held = [(self.cpus, cpus), (self.gpus, gpus), (self.memory, memory if self.memory else 0.0)]
        rooms = [have / need for have, need in held if need]
        return int(min(rooms) + 1e-9) if rooms else 1


@dataclass(frozen=True)
class NodeTypes:
    """All node types of a cluster, and how many nodes there can be at once."""

    source: str
    """Where they are declared, for messages."""
    types: Sequence[NodeType]
    max_nodes: int

    def num_workers(self, cpus: float, gpus: float, memory: float = 0.0) -> int:
        """Return how many workers with these reservations fit on the cluster at its full size."""
        left, held = self.max_nodes, 0
        rooms = [(kind.num_workers(cpus, gpus, memory), kind.max_nodes) for kind in self.types]
        for each, max_nodes in sorted(rooms, reverse=True):
            nodes = min(max_nodes, left)
            left, held = left - nodes, held + nodes * each
        return held


def read(path: str) -> NodeTypes:
    """Return the node types of a launcher file or a RayJob, including the head with its resources.

    Raises:
        InputError: the file cannot be read, or is neither of them.

    """
    try:
        content: Any = yaml.safe_load(Path(path).read_text())
        told = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        if told.get("kind") == "RayJob":
            return _of_kuberay(path, told["spec"]["rayClusterSpec"])
        if told.get("kind") == "RayCluster":
            return _of_kuberay(path, told["spec"])
        found = _of_launcher(told["head_node_type"], told["available_node_types"])
        return NodeTypes(path, found, int(told["max_workers"]) + 1)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"cluster.file={path} is neither a launcher file with node types nor a RayJob ({type(error).__name__}: {' '.join(str(error).split())[:120]}); nothing was started; name a file such as cluster/aws.yaml"
        ) from error


def _of_launcher(head: str, entries: Mapping[str, _Launched]) -> list[NodeType]:
    return [
        NodeType(
            name=name,
            cpus=float(entry["resources"].get("CPU", 0)),
            gpus=float(entry["resources"].get("GPU", 0)),
            max_nodes=1 if name == head else int(entry.get("max_workers", 0)),
            labels=entry.get("labels") or {},
            memory=float(entry["resources"].get("memory", 0)),
            machine=next(
                (str(entry["node_config"][key]) for key in _MACHINE_KEYS if key in entry["node_config"]), ""
            ),
        )
        for name, entry in entries.items()
    ]


def _of_kuberay(path: str, cluster: _ClusterSpec) -> NodeTypes:
    types = [_of_group("head", 1, cluster["headGroupSpec"])]
    types += [
        _of_group(group["groupName"], int(group["maxReplicas"]), group)
        for group in cluster["workerGroupSpecs"]
    ]
    return NodeTypes(path, types, sum(kind.max_nodes for kind in types))


def _of_group(name: str, max_nodes: int, group: _Group) -> NodeType:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    start = group.get("rayStartParams") or {}
    return NodeType(
        name=name,
        cpus=float(start.get("num-cpus", _cores(limits["cpu"]))),
        gpus=float(start.get("num-gpus", limits.get(_DEVICE, 0))),
        max_nodes=max_nodes,
        labels=group.get("labels") or {},
        memory=float(
            start.get("memory", _RESERVABLE * _bytes(limits["memory"]) if "memory" in limits else 0)
        ),
    )


def _cores(quantity: object) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _bytes(quantity: object) -> float:
    """Return the bytes of a Kubernetes quantity such as 16Gi or 500M."""
    text = str(quantity)
    number = text.rstrip("EPTGMKkim")
    unit = text[len(number) :]
    base = 1024 if unit.endswith("i") else 1000
    return float(number) * base ** (" KMGTPE".index(unit[0].upper()) if unit else 0)


def this_machine() -> NodeTypes:
    """Return this machine with the memory that Ray started on it would have; other resources are not considered."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # `max`, or no such file: not limited
        total = min(total, int(_CGROUP_LIMIT.read_text()))
    kind = NodeType("this machine", 1.0, 0.0, 1, memory=_RESERVABLE * total)
    return NodeTypes("this machine", [kind], 1)


def alive(without: Collection[str] = ()) -> NodeTypes:
    """Return the nodes of the cluster that this process has joined, each as its own type, except those with the ids `without`."""
    types = list(_alive(without))
    return NodeTypes("the cluster", types, len(types))


def _alive(without: Collection[str]) -> Iterator[NodeType]:
    import ray

    nodes = cast("list[dict[str, Any]]", ray.nodes())
    for node in nodes:
        if node["Alive"] and node["NodeID"] not in without:
            has = node["Resources"]
            yield NodeType(
                node["NodeManagerHostname"],
                has.get("CPU", 0.0),
                has.get("GPU", 0.0),
                1,
                node.get("Labels") or {},
                memory=has.get("memory", 0.0),
            )
