"""A cluster that grows and shrinks on one host: Ray's autoscaler (v2) over its provider of fake nodes.

The nodes are real Rays on one host of tests/support/hosts.py, with logical CPUs and GPUs; what is real is the way from demand
to node to idleness to no node. `python -m tests.support.autoscaling` on the host prints, each second, how many nodes of each type
are active and idle. `python -m tests.support.autoscaling plot SAMPLES PICTURE` draws them.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.hosts import CHECKOUT, Host

GCS_PORT = 6379
_HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""The id that Ray's provider of fake nodes gives its head."""
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
"""Named as a provider from outside: Ray's wheel lacks the file of defaults that its own name needs."""
_STORE = {"object_store_memory": 100 * 2**20}
CONFIG = {
    "cluster_name": "fake",
    "max_workers": 4,
    "upscaling_speed": 4.0,
    "idle_timeout_minutes": 1.0,
    "provider": {"type": "external", "module": _PROVIDER, "launch_multiple": True, "head_node_id": _HEAD_ID},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu-data": {
            "resources": {"CPU": 2, **_STORE},
            "labels": {"corgi/work": "cpu", "ray.io/market-type": "on-demand"},
            "idle_timeout_s": 10,
            "max_workers": 3,
            "node_config": {},
        },
        "gpu-spot": {
            "resources": {"CPU": 2, "GPU": 1, **_STORE},
            "labels": {"corgi/work": "gpu", "ray.io/market-type": "spot"},
            "idle_timeout_s": 6,
            "max_workers": 1,
            "node_config": {},
        },
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
"""The node types of cluster/aws.yaml, small, and with timeouts that a test can wait for."""
FAKE = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
}
KINDS = ("cpu-data", "gpu-spot")
SOURCES = {"PYTHONPATH": str(CHECKOUT)}


@dataclass(frozen=True)
class Sample:
    """One look at the cluster: nodes by type, at a time in seconds since the epoch."""

    at: float
    active: Mapping[str, int]
    idle: Mapping[str, int]

    def nodes(self, kind: str = "") -> int:
        """Return how many nodes there are, of one type or of all."""
        return sum(
            count for part in (self.active, self.idle) for name, count in part.items() if kind in ("", name)
        )


class FakeCloud:
    """Ray's head with its autoscaler on one host."""

    def __init__(self, host: Host) -> None:
        """Start it, and the looks at it."""
        self.host = host
        (host.tmp / "fake.yaml").write_text(yaml.safe_dump(CONFIG))
        start = ("ray", "start", "--head", f"--port={GCS_PORT}", "--num-cpus=0", "--num-gpus=0")
        host.checked(*start, "--autoscaling-config=/tmp/fake.yaml", environment={**FAKE, **SOURCES})
        self._log = host.tmp / "samples.jsonl"
        with self._log.open("w") as log:
            looks = ("python", "-m", "tests.support.autoscaling", self.address)
            self._looks: subprocess.Popen[str] = host.start(*looks, environment=SOURCES, output=log)

    @property
    def address(self) -> str:
        """Return the address of the head."""
        return f"{self.host.address}:{GCS_PORT}"

    def samples(self) -> list[Sample]:
        """Return all looks so far."""
        assert self._looks.poll() is None, self._log.read_text()[-3000:]
        return read(self._log.read_text())

    def num_nodes(self) -> int:
        """Return the number of workers at the last look."""
        found = self.samples()
        return found[-1].nodes() if found else 0


def read(text: str) -> list[Sample]:
    """Return the samples in a text of JSON lines, among other lines."""
    return [Sample(**json.loads(line)) for line in text.splitlines() if line.startswith('{"at"')]


def idle_share(samples: Iterable[Sample]) -> float:
    """Return idle node-seconds over active node-seconds; looks are equally far apart."""
    found = list(samples)
    idle = sum(sum(sample.idle.values()) for sample in found)
    return idle / max(1, sum(sum(sample.active.values()) for sample in found))


def look(address: str) -> None:
    """Print a sample each second, for ever."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    while True:
        status = get_cluster_status(address)
        parts = {
            name: Counter(n.ray_node_type_name for n in nodes if n.ray_node_type_name in KINDS)
            for name, nodes in (("active", status.active_nodes), ("idle", status.idle_nodes))
        }
        print(json.dumps({"at": time.time(), **parts}), flush=True)
        time.sleep(1)


def plot(samples: list[Sample], stages: Mapping[str, float], picture: Path) -> None:
    """Draw the nodes of each type over time, idle ones pale, with the beginnings of the stages."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = KINDS
    start = min(stages.values())
    at = [sample.at - start for sample in samples]
    figure, axes = plt.subplots(len(kinds), 1, figsize=(9, 4), sharex=True)
    for axis, kind, colour in zip(axes, kinds, ("tab:blue", "tab:green"), strict=True):
        active = [sample.active.get(kind, 0) for sample in samples]
        idle = [sample.idle.get(kind, 0) for sample in samples]
        axis.stackplot(
            at, active, idle, labels=("at work", "idle"), colors=(colour, "lightgrey"), step="post"
        )
        axis.set_ylabel(kind)
        axis.set_ylim(0, 4)
        axis.legend(loc="upper right", fontsize="small")
        for name, begun in stages.items():
            axis.axvline(begun - start, color="black", linewidth=0.5)
            if axis is axes[0]:
                axis.text(begun - start, 4.1, name, rotation=60, fontsize="x-small")
    axes[-1].set_xlabel("seconds since the start of the flow")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def main(arguments: list[str]) -> None:
    """Look at a cluster, or draw what a test saw of one."""
    if arguments[0] == "plot":
        told = json.loads(Path(arguments[1]).read_text())
        plot([Sample(**sample) for sample in told["samples"]], told["stages"], Path(arguments[2]))
    else:
        look(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
