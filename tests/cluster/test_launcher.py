"""The launcher files: Ray's own validation, our rules, and proof that both refuse a broken file."""

import copy
import importlib.metadata
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from corgi.flow.spot_watcher import main
from tests.cluster import launcher_rules
from tests.cluster.versions import CLUSTER, REPOSITORY, locked_ray_version
from tests.support.waiting import wait_until

FILES = ("aws", "gcp", "on-prem")
CLOUDS = ("aws", "gcp")


def load(name: str) -> dict[str, Any]:
    """Read a launcher file; aliases become copies, so that a test can change one node alone."""
    return json.loads(json.dumps(yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())))


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Fill in Ray's defaults and validate as `ray up` does before it asks any cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_every_launcher_file_is_tested() -> None:
    assert {path.stem for path in CLUSTER.glob("*.yaml")} - {"skypilot"} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_file_passes_rays_validation_and_our_rules(name: str) -> None:
    assert launcher_rules.faults(prepare(load(name))) == []


@pytest.mark.parametrize("name", FILES)
def test_misspelt_top_level_key_is_refused(name: str) -> None:
    from jsonschema import ValidationError

    config = load(name)
    config["idle_timeout_minuts"] = config.pop("idle_timeout_minutes")
    with pytest.raises(ValidationError, match="idle_timeout_minuts"):
        prepare(config)


@pytest.mark.parametrize("name", CLOUDS)
def test_misspelt_node_type_key_is_refused(name: str) -> None:
    from jsonschema import ValidationError

    config = load(name)
    node = config["available_node_types"]["gpu-spot"]
    node["max_worker"] = node.pop("max_workers")
    with pytest.raises(ValidationError, match="max_worker"):
        prepare(config)


@pytest.mark.parametrize("name", CLOUDS)
def test_unknown_head_node_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        prepare(load(name) | {"head_node_type": "haed"})


def _node(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: config["available_node_types"][name]


def _machine(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: config["available_node_types"][name]["node_config"]


def _top(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _docker(config: dict[str, Any]) -> dict[str, Any]:
    return config["docker"]


def _provider(config: dict[str, Any]) -> dict[str, Any]:
    return config["provider"]


DROP = object()
_OPEN = {
    "GroupName": "corgi",
    "IpPermissions": [{"IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
}
_TOKEN_HEAD = "RAY_AUTH_MODE=token ray start --head"
_START = "RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379"
_WATCH = "RAY_AUTH_MODE=token setsid --fork python -m corgi.flow.spot_watcher"
BREAKS = [
    ("aws", _node("head"), "resources", {"CPU": 4}, "the head offers CPUs"),
    ("gcp", _node("head"), "resources", {}, "the head offers CPUs"),
    ("on-prem", _top, "head_start_ray_commands", [_TOKEN_HEAD], "the head offers CPUs"),
    ("aws", _machine("head"), "InstanceMarketOptions", {"MarketType": "spot"}, "the head is on spot"),
    ("aws", _machine("cpu-data"), "InstanceType", DROP, "cpu-data has no InstanceType"),
    ("gcp", _machine("gpu-spot"), "machineType", DROP, "gpu-spot has no machineType"),
    (
        "aws",
        _machine("gpu-spot"),
        "InstanceMarketOptions",
        DROP,
        "gpu-spot is labelled spot and is on demand",
    ),
    (
        "gcp",
        _machine("gpu-spot"),
        "scheduling",
        [{"onHostMaintenance": "TERMINATE"}],
        "gpu-on-demand has GPUs on demand and no spot twin",
    ),
    ("aws", _node("cpu-data"), "resources", {"CPU": 16, "GPU": 1}, "for CPU work and has GPUs"),
    ("gcp", _node("gpu-spot"), "resources", {"CPU": 48}, "for GPU work and has no GPUs"),
    ("aws", _node("gpu-spot"), "labels", DROP, "gpu-spot has no label corgi/work"),
    ("gcp", _node("cpu-data"), "labels", {"corgi/work": "cpu"}, "cpu-data has no label ray.io/market-type"),
    (
        "aws",
        _node("gpu-spot"),
        "labels",
        {"corgi/wrk": "gpu", "ray.io/market-type": "spot"},
        "unknown label corgi/wrk",
    ),
    (
        "aws",
        _node("gpu-spot"),
        "labels",
        {"corgi/work": "gpus", "ray.io/market-type": "spot"},
        "unknown label corgi/work=gpus",
    ),
    ("aws", _node("cpu-data"), "priority", 5, "cpu-data has a priority and no twin"),
    (
        "gcp",
        _node("gpu-spot"),
        "priority",
        DROP,
        "gpu-spot is on spot and does not come before gpu-on-demand",
    ),
    ("aws", _node("gpu-on-demand"), "priority", 10, "does not come before gpu-on-demand"),
    ("gcp", _node("gpu-on-demand"), "resources", {"CPU": 24, "GPU": 2}, "no spot twin"),
    ("aws", _node("cpu-data"), "idle_timeout_s", 0, "cpu-data is idle 0 s"),
    ("gcp", _node("gpu-spot"), "idle_timeout_s", DROP, "gpu-spot is idle None s"),
    (
        "aws",
        _top,
        "head_start_ray_commands",
        ["RAY_AUTH_MODE=token ray start --head"],
        "are not given up within",
    ),
    ("aws", _machine("gpu-spot"), "IamInstanceProfile", DROP, "no IamInstanceProfile"),
    ("aws", _machine("cpu-data"), "SecurityGroupIds", DROP, "open port 22"),
    ("gcp", _machine("head"), "networkInterfaces", DROP, "public address"),
    ("gcp", _machine("head"), "networkInterfaces", [{"accessConfigs": []}], "asks for a public address"),
    ("aws", _provider, "security_group", _OPEN, "admits the whole internet"),
    ("gcp", _provider, "use_internal_ips", DROP, "public addresses"),
    ("aws", _node("gpu-spot"), "min_workers", 1, "costs money when idle"),
    ("gcp", _node("cpu-data"), "max_workers", -1, "does not hold"),
    ("aws", _node("cpu-data"), "max_workers", 99, "does not hold"),
    ("aws", _docker, "image", "corgi:2.59.0", "is not Ray"),
    ("on-prem", _docker, "image", "registry.example:5000/corgi", "is not Ray"),
    ("gcp", _docker, "run_options", [], "is not in the container"),
    ("aws", _docker, "run_options", ["--env WANDB_API_KEY=1"], "a secret is named"),
    ("aws", _top, "file_mounts", {}, "token is not handed"),
    ("aws", _top, "initialization_commands", [], "nothing mounts"),
    (
        "aws",
        _top,
        "worker_start_ray_commands",
        ["ray start --address=$RAY_HEAD_IP:6379"],
        "without RAY_AUTH_MODE",
    ),
    ("on-prem", _top, "head_start_ray_commands", ["ray start --head --num-cpus=0"], "without RAY_AUTH_MODE"),
    ("gcp", _top, "worker_start_ray_commands", ["ray stop"], "starts no Ray"),
    ("aws", _top, "worker_start_ray_commands", [_START], "gpu-spot is on spot and no watcher drains it"),
    ("gcp", _top, "worker_start_ray_commands", [_START], "gpu-spot is on spot and no watcher drains it"),
    ("gcp", _top, "worker_start_ray_commands", [_START, f"{_WATCH} aws"], "does not ask gcp"),
    ("aws", _top, "worker_start_ray_commands", [_START, _WATCH], "does not ask aws"),
    ("aws", _top, "worker_start_ray_commands", [f"{_WATCH} aws", _START], "starts before Ray"),
    (
        "gcp",
        _top,
        "worker_start_ray_commands",
        [_START, "setsid --fork python -m corgi.flow.spot_watcher gcp"],
        "watcher has no token",
    ),
    (
        "aws",
        _top,
        "worker_start_ray_commands",
        [_START, "RAY_AUTH_MODE=token python -m corgi.flow.spot_watcher aws"],
        "keeps the start of the node waiting",
    ),
    ("aws", _top, "head_start_ray_commands", DROP, "the dashboard listens on every address"),
    ("aws", _top, "setup_commands", DROP, "installs packages"),
    ("gcp", _top, "head_setup_commands", DROP, "installs packages"),
]


@pytest.mark.parametrize(("name", "part", "key", "value", "fault"), BREAKS)
def test_our_rules_refuse_what_rays_validation_lets_through(
    name: str, part: Callable[[dict[str, Any]], dict[str, Any]], key: str, value: Any, fault: str
) -> None:
    config = load(name)
    if value is DROP:
        del part(config)[key]
    else:
        part(config)[key] = value
    found = launcher_rules.faults(prepare(config))
    assert any(fault in line for line in found), found


@pytest.mark.parametrize("name", CLOUDS)
def test_the_watcher_starts_apart_from_the_shell_and_once_per_machine(name: str, tmp_path: Path) -> None:
    """The file's line in a shell, with a python that notes its process and arguments and runs on."""
    [line] = [line for line in load(name)["worker_start_ray_commands"] if "spot_watcher" in line]
    noted, program = tmp_path / "noted", tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$$ $RAY_AUTH_MODE $*" >> {noted}\nexec sleep 120\n')
    program.chmod(0o755)
    (tmp_path / "ray/session_latest/logs").mkdir(parents=True)
    line = line.replace(" /tmp/", f" {tmp_path}/")
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", line], env=environment, check=True, timeout=60)
    wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"), "the watcher's start")
    process, _, rest = noted.read_text().partition(" ")
    try:
        attached = line.replace("setsid --fork", "")
        assert subprocess.run(["bash", "-c", attached], env=environment, timeout=60).returncode == 1
    finally:
        os.kill(int(process), signal.SIGTERM)
    assert rest == f"token -m corgi.flow.spot_watcher {name}\n", "started once"
    assert main.__module__ == rest.split()[2]


def test_cloud_autoscaler_returns_idle_workers() -> None:
    for name in CLOUDS:
        assert 0 < prepare(load(name))["idle_timeout_minutes"] <= 15


def test_lock_installation_and_project_agree_on_ray() -> None:
    locked = locked_ray_version()
    assert importlib.metadata.version("ray") == locked
    project = (REPOSITORY / "pyproject.toml").read_text()
    wanted = Requirement(re.findall(r'"(ray\[[^"]+)"', project)[0])
    assert locked in wanted.specifier
    for name in ("Dockerfile", "README.md"):
        tags = set(re.findall(r"corgi:(\d[\w.]*)", (CLUSTER / name).read_text()))
        assert tags == {locked}, name


def test_image_installs_from_the_lock_as_another_user_than_root() -> None:
    lines = re.sub(r"\\\n\s*", "", (CLUSTER / "Dockerfile").read_text()).splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 1
    assert '-c requirements.lock ".[demo]"' in installs[0]
    assert [line.split()[1] for line in lines if line.startswith("USER ")][-1:] == ["corgi"]
    environment = next(line for line in lines if line.startswith("ENV "))
    assert "HOME=/home/corgi" in environment, "Ray's launcher reads HOME from the image, else it takes /root"
    assert "RAY_AUTH_MODE=token" in environment
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert all((REPOSITORY / word).exists() for word in copied), copied


def test_no_file_names_a_secret_or_an_open_range() -> None:
    for path in [*CLUSTER.glob("*.yaml"), *CLUSTER.glob("kuberay/*.yaml"), CLUSTER / "Dockerfile"]:
        text = path.read_text()
        assert "0.0.0.0/0" not in text, path
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|\bhf_[A-Za-z0-9]{20}", text), path
