"""The node types of the files in cluster/, as Ray's autoscaler reads them."""

import json
from typing import Any

import yaml

from tests.cluster.versions import CLUSTER

FILES = ("aws", "gcp", "kuberay")
"""The files that name node types; the machines of on-prem.yaml are fixed."""


def load(name: str) -> dict[str, Any]:
    """Read a file of cluster/; aliases become copies, so that a test can change one part alone."""
    return json.loads(json.dumps(yaml.safe_load((CLUSTER / name).read_text())))


def node_types(name: str) -> dict[str, Any]:
    """Return what a file declares as Ray's NodeTypeConfig by name, the head left out."""
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig

    declared = _kuberay() if name == "kuberay" else _launcher(name)
    return {
        kind: NodeTypeConfig(
            name=kind,
            min_worker_nodes=entry["min_workers"],
            max_worker_nodes=entry["max_workers"],
            idle_timeout_s=entry.get("idle_timeout_s"),
            priority=entry.get("priority", 0),
            resources=entry["resources"],
            labels=entry["labels"],
        )
        for kind, entry in declared.items()
    }


def _launcher(name: str) -> dict[str, Any]:
    config = load(f"{name}.yaml")
    return {
        kind: entry
        for kind, entry in config["available_node_types"].items()
        if kind != config["head_node_type"]
    }


def _kuberay() -> dict[str, Any]:
    """Read the RayJob as the autoscaler's own KubeRay code does."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = load("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]
    config = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "corgi", "namespace": "default"}, "spec": cluster}
    )
    return {
        kind: entry
        for kind, entry in config["available_node_types"].items()
        if kind != config["head_node_type"]
    }
