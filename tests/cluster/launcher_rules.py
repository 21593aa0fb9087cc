"""What Ray's validation of a launcher file does not look at, as rules that return what is wrong."""

import re
from collections.abc import Iterator
from typing import Any

from tests.cluster import group_rules
from tests.cluster.group_rules import Group
from tests.cluster.versions import image_tag, locked_ray_version, strings

SHARED_FOLDER = "/mnt/corgi"
_WATCHER = "python -m corgi.flow.spot_watcher"
MACHINE_KEYS = {"aws": "InstanceType", "gcp": "machineType"}


def faults(config: dict[str, Any]) -> list[str]:
    """Return one line per broken rule of a prepared launcher config."""
    found = [*_commands(config), *_network(config), *_container(config)]
    if config["provider"]["type"] != "local":
        found += [*_node_types(config), *_watcher(config), *group_rules.faults(_groups(config))]
    return found


def _commands(config: dict[str, Any]) -> Iterator[str]:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in config[name] if "ray start" in command]
        if not starts:
            yield f"{name} starts no Ray"
        for command in starts:
            if "RAY_AUTH_MODE=token ray start" not in command:
                yield f"{name} starts Ray without RAY_AUTH_MODE=token"
            if name.startswith("head"):
                yield from _head(config, command)
    commands = [line for key, lines in config.items() if key.endswith("_commands") for line in lines]
    if any("pip install" in line or "ray-wheels" in line for line in commands):
        yield "a command installs packages over the image's"


def _head(config: dict[str, Any], start: str) -> Iterator[str]:
    if not _head_is_empty(config, start):
        yield "the head offers CPUs or GPUs"
    given_up_s = re.search(r"RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S=(\d+)", start)
    if config["provider"]["type"] != "local" and (not given_up_s or not 60 <= int(given_up_s[1]) <= 900):
        yield "nodes that start and are not wanted any more are not given up within 60 to 900 s"


def _head_is_empty(config: dict[str, Any], start: str) -> bool:
    resources = config["available_node_types"][config["head_node_type"]]["resources"]
    return resources.get("CPU") == 0 or "--num-cpus=0" in start


def _network(config: dict[str, Any]) -> Iterator[str]:
    texts = list(strings(config))
    if any("0.0.0.0/0" in text or "::/0" in text for text in texts):
        yield "a rule admits the whole internet"
    if any("--dashboard-host=0.0.0.0" in text for text in texts):
        yield "the dashboard listens on every address"
    kind = config["provider"]["type"]
    if kind != "local" and config["provider"].get("use_internal_ips") is not True:
        yield "nodes have public addresses"
    for name, node in config["available_node_types"].items():
        if kind == "aws" and not node["node_config"].get("SecurityGroupIds"):
            yield f"{name} has no SecurityGroupIds: the launcher would open port 22 to the internet"
        if kind == "gcp" and not node["node_config"].get("networkInterfaces"):
            yield f"{name} has no networkInterfaces: the launcher would give it a public address"
    if any(text == "accessConfigs" for text in texts):
        yield "a network interface asks for a public address"


def _container(config: dict[str, Any]) -> Iterator[str]:
    tag = image_tag(config["docker"]["image"])
    if tag != locked_ray_version():
        yield f"the image's tag {tag!r} is not Ray {locked_ray_version()}"
    if config["file_mounts"].get("~/.ray/auth_token") != "~/.ray/auth_token":
        yield "the token is not handed to the nodes"
    if f"--volume {SHARED_FOLDER}:{SHARED_FOLDER}" not in config["docker"].get("run_options", []):
        yield f"{SHARED_FOLDER} is not in the container"
    if any(word in text for text in strings(config) for word in ("API_KEY", "SECRET", "RAY_AUTH_TOKEN")):
        yield "a secret is named in the file"


def _node_types(config: dict[str, Any]) -> Iterator[str]:
    kind, head = config["provider"]["type"], config["head_node_type"]
    if not any(
        f" {SHARED_FOLDER}" in line and "mount -t" in line for line in config["initialization_commands"]
    ):
        yield f"nothing mounts {SHARED_FOLDER}"
    for name, node in config["available_node_types"].items():
        on_spot = _is_spot(kind, node["node_config"])
        if not node["node_config"].get(MACHINE_KEYS[kind]):
            yield f"{name} has no {MACHINE_KEYS[kind]}"
        if name == head:
            if on_spot:
                yield "the head is on spot"
            continue
        if kind == "aws" and not node["node_config"].get("IamInstanceProfile"):
            yield f"{name} has no IamInstanceProfile"
        if node["min_workers"] != 0:
            yield f"{name} costs money when idle"
        if not node["min_workers"] <= node["max_workers"] <= config["max_workers"]:
            yield f"{name}: min_workers <= max_workers <= {config['max_workers']} does not hold"


def _watcher(config: dict[str, Any]) -> Iterator[str]:
    """Every worker starts the watcher of its cloud after Ray and apart from the shell; on a machine that is not spot it ends."""
    kind, commands = config["provider"]["type"], config["worker_start_ray_commands"]
    starts = [place for place, command in enumerate(commands) if "ray start" in command]
    watchers = [place for place, command in enumerate(commands) if _WATCHER in command]
    if not watchers:
        for name, node in config["available_node_types"].items():
            if _is_spot(kind, node["node_config"]):
                yield f"{name} is on spot and no watcher drains it at the cloud's notice"
    for place in watchers:
        command = commands[place]
        if command.partition(_WATCHER)[2].split()[:1] != [kind]:
            yield f"the spot watcher does not ask {kind}"
        if not any(start < place for start in starts):
            yield "the spot watcher starts before Ray"
        if "RAY_AUTH_MODE=token" not in command:
            yield "the spot watcher has no token"
        if "setsid --fork" not in command:
            yield "the spot watcher keeps the start of the node waiting"


def _groups(config: dict[str, Any]) -> list[Group]:
    kind = config["provider"]["type"]
    return [
        Group(
            name=name,
            cpus=node["resources"].get("CPU", 0),
            gpus=node["resources"].get("GPU", 0),
            labels=node.get("labels") or {},
            priority=node.get("priority"),
            idle_timeout_s=node.get("idle_timeout_s"),
            is_spot=_is_spot(kind, node["node_config"]),
            is_head=name == config["head_node_type"],
        )
        for name, node in config["available_node_types"].items()
    ]


def _is_spot(kind: str, node_config: dict[str, Any]) -> bool:
    if kind == "aws":
        return node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return any(entry.get("preemptible") for entry in node_config.get("scheduling", []))
