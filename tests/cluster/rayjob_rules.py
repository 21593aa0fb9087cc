"""What no schema of a RayJob can say, as rules that return what is wrong."""

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from tests.cluster import group_rules
from tests.cluster.group_rules import Group
from tests.cluster.versions import CLUSTER, REPOSITORY, image_tag, locked_ray_version

CHECKPOINT_S = 60
"""Seconds a training may need to commit a checkpoint after a spot notice."""
STEP_S = 10
"""Seconds of the longest step after which a training looks for a notice."""
POLL_S = 5
"""Seconds between two looks of Ray Train at the nodes being drained (RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S)."""
DRAIN_TIMEOUT = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
PENDING_TIMEOUT = "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S"
_UNITS = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def faults(job: dict[str, Any], claims: set[str]) -> list[str]:
    """Return one line per broken rule; `claims` are the volume claims declared beside the job."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }
    found = [*_versions(cluster, groups), *_entrypoint(job, groups), *_scaling(cluster), *_operator(job)]
    found += group_rules.faults([_group(name, group) for name, group in groups.items()])
    for name, group in groups.items():
        found += [f"{name}: {fault}" for fault in _pod(group["template"]["spec"], claims)]
    return found


def quantity(amount: int | str) -> float:
    """Return a Kubernetes quantity as a number: cores, bytes or devices."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(amount)).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return float(number) * _UNITS[unit]


def documented_secrets() -> dict[str, set[str]]:
    """Return the keys of each secret that README.md says how to make."""
    made = re.findall(r"kubectl create secret generic (\S+) (.+)", (CLUSTER / "README.md").read_text())
    return {name: set(re.findall(r"--from-literal=(\w+)=", rest)) for name, rest in made}


def _versions(cluster: dict[str, Any], groups: dict[str, Any]) -> Iterator[str]:
    locked = locked_ray_version()
    if "rayVersion" not in cluster:
        yield f"rayVersion is missing: without it the operator makes no token; it is {locked}"
    elif cluster["rayVersion"] != locked:
        yield f"rayVersion {cluster['rayVersion']} is not the lock's {locked}"
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups.values()}
    if len(images) > 1:
        yield f"head and workers have different images: {sorted(images)}"
    for image in images:
        if image_tag(image) != locked:
            yield f"the image {image} is not Ray {locked}"


def _entrypoint(job: dict[str, Any], groups: dict[str, Any]) -> Iterator[str]:
    program, script, recipe, *overrides = shlex.split(job["spec"]["entrypoint"])
    if program != "python" or script != "pipelines/full.py" or not (REPOSITORY / script).is_file():
        yield "the entrypoint does not run pipelines/full.py"
    if not (REPOSITORY / recipe).is_file() or not recipe.startswith("pipelines/recipes/"):
        yield f"there is no recipe {recipe}"
    roots = [PurePosixPath(text.removeprefix("root=")) for text in overrides if text.startswith("root=")]
    for name, group in groups.items():
        spec = group["template"]["spec"]
        shared = {volume["name"] for volume in spec["volumes"] if "persistentVolumeClaim" in volume}
        mounts = [
            PurePosixPath(m["mountPath"])
            for m in spec["containers"][0]["volumeMounts"]
            if m["name"] in shared
        ]
        if len(roots) != 1 or not any(roots[0].is_relative_to(mount) for mount in mounts):
            yield f"root is not an absolute path on the shared volume of {name}"


def _operator(job: dict[str, Any]) -> Iterator[str]:
    """Yield what the operator or its autoscaler refuses, or takes without a word and does not do."""
    cluster = job["spec"]["rayClusterSpec"]
    options = cluster.get("autoscalerOptions", {})
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode is not token: anyone who reaches the head may submit"
    if not job["spec"].get("preRunningDeadlineSeconds"):
        yield "preRunningDeadlineSeconds is missing: a cluster without room waits for ever"
    if options.get("idleTimeoutSeconds", 0) < 60:
        yield "autoscalerOptions.idleTimeoutSeconds is below 60: nodes go while a stage still starts"
    given_up_s = {entry["name"]: entry.get("value", "") for entry in options.get("env", [])}
    if not 60 <= int(given_up_s.get(PENDING_TIMEOUT) or 0) <= 900:
        yield f"{PENDING_TIMEOUT} of the autoscaler is not 60 to 900 s"
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    if "version" in options and "RAY_enable_autoscaler_v2" in {entry["name"] for entry in head["env"]}:
        yield "the autoscaler's version is given twice: in autoscalerOptions and in the head's environment"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        name, start = group.get("groupName", "head"), group["rayStartParams"]
        if group.get("resources") and start.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{name} has resources twice: in resources and in rayStartParams"
        if "labels" in start:
            yield f"{name} has labels in rayStartParams, which the operator refuses"
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield f"{name} has restartPolicy {group['template']['spec']['restartPolicy']}: autoscaler v2 needs Never"


def _group(name: str, group: dict[str, Any]) -> Group:
    spec, start = group["template"]["spec"], group["rayStartParams"]
    limits = spec["containers"][0]["resources"]["limits"]
    return Group(
        name=name,
        cpus=float(start.get("num-cpus", quantity(limits["cpu"]))),
        gpus=quantity(limits.get("nvidia.com/gpu", 0)),
        labels=group.get("labels") or {},
        priority=group.get("priority"),
        idle_timeout_s=group.get("idleTimeoutSeconds"),
        is_spot=spec.get("nodeSelector", {}).get("node-lifecycle") == "spot",
        is_head=name == "head",
    )


def _drain(name: str, spec: dict[str, Any]) -> Iterator[str]:
    """Yield where the pod ends before the drain, or the drain before a checkpoint is made."""
    grace_s = spec.get("terminationGracePeriodSeconds", 30)
    told = {entry["name"]: entry.get("value", "") for entry in spec["containers"][0]["env"]}
    drain_s = float(told.get(DRAIN_TIMEOUT) or 30)
    if grace_s <= drain_s:
        yield f"{name}: the pod ends after {grace_s} s, before its drain of {drain_s:.0f} s"
    if "nvidia.com/gpu" in spec["containers"][0]["resources"]["limits"] and drain_s <= (
        needed_s := POLL_S + STEP_S + CHECKPOINT_S
    ):
        yield f"{name}: a drain of {drain_s:.0f} s is too short for a look, a step and a checkpoint, {needed_s} s"


def _scaling(cluster: dict[str, Any]) -> Iterator[str]:
    start = cluster["headGroupSpec"]["rayStartParams"]
    if start.get("num-cpus") != "0":
        yield "the head offers CPUs"
    if cluster["headGroupSpec"]["template"]["spec"].get("tolerations"):
        yield "the head may land on spot"
    for group in cluster["workerGroupSpecs"]:
        name, spec = group["groupName"], group["template"]["spec"]
        if not 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{name}: 0 = minReplicas <= replicas <= maxReplicas does not hold"
        yield from _drain(name, spec)
        if "nvidia.com/gpu" not in spec["containers"][0]["resources"]["limits"]:
            continue
        wanted = {"nvidia.com/gpu"} | ({"node-lifecycle"} & spec.get("nodeSelector", {}).keys())
        if not wanted <= {entry["key"] for entry in spec.get("tolerations", [])}:
            yield f"{name} does not tolerate the taints of spot and GPU nodes"


def _pod(spec: dict[str, Any], claims: set[str]) -> Iterator[str]:
    container = spec["containers"][0]
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    if requests.get("nvidia.com/gpu") != limits.get("nvidia.com/gpu"):
        yield "GPU requests differ from limits"
    if any(quantity(requests[key]) > quantity(limits[key]) for key in requests.keys() & limits.keys()):
        yield "a request is above its limit"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    if set(mounts.values()) != set(volumes):
        yield f"volumes {sorted(volumes)} are not what is mounted, {sorted(mounts.values())}"
    memory = volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir")  # noqa: S108 a path inside the pod
    if memory is None or quantity(memory["sizeLimit"]) >= quantity(limits["memory"]):
        yield "shared memory is no memory volume smaller than the memory limit"
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield f"the claim {claim} is declared nowhere"
    yield from _secrets(container["env"])


def _secrets(env: list[dict[str, Any]]) -> Iterator[str]:
    documented = documented_secrets()
    if "WANDB_API_KEY" not in {entry["name"] for entry in env}:
        yield "WANDB_API_KEY does not reach the pod"
    for entry in env:
        secret = entry.get("valueFrom", {}).get("secretKeyRef")
        if secret is None:
            if re.search("KEY|TOKEN|SECRET|PASSWORD", entry["name"]):
                yield f"{entry['name']} is written into the file"
        elif secret["key"] not in documented.get(secret["name"], set()):
            yield f"README.md does not say how to make {secret['key']} of {secret['name']}"
        elif not secret.get("optional"):
            yield f"{entry['name']} is not optional"
