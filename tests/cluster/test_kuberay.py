"""The KubeRay files: our closed schema, our rules, the upstream CRD where it is at hand, and proof that each refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.cluster import rayjob_rules
from tests.cluster.versions import CLUSTER, REPOSITORY

CRD = REPOSITORY.parent / "shared" / "kuberay-crds" / "ray.io_rayjobs.yaml"


def load(name: str) -> dict[str, Any]:
    """Read a manifest; aliases become copies, so that a test can change one group alone."""
    return json.loads(json.dumps(yaml.safe_load((CLUSTER / "kuberay" / name).read_text())))


def claims() -> set[str]:
    """Return the volume claims of storage.yaml."""
    return {load("storage.yaml")["metadata"]["name"]}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """Our own schema of the fields used."""
    rules = yaml.safe_load((Path(__file__).parent / "rayjob.schema.yaml").read_text())
    Draft202012Validator.check_schema(rules)
    return Draft202012Validator(rules)


@pytest.fixture(scope="module")
def upstream() -> Draft202012Validator:
    """KubeRay's CRD as a closed JSON schema."""
    if not CRD.is_file():
        pytest.skip(f"KubeRay's CRD is not at {CRD}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(CRD.read_text(), Loader=loader)  # noqa: S506 both loaders are safe ones
    version = next(entry for entry in crd["spec"]["versions"] if entry["name"] == "v1")
    return Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def closed(node: Any) -> Any:
    """Turn a structural OpenAPI schema into a JSON schema that refuses unknown keys."""
    if isinstance(node, list):
        return [closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]} | {key: node[key] for key in ("pattern",) if key in node}
    result = {key: closed(value) for key, value in node.items() if not str(key).startswith("x-kubernetes-")}
    properties = node.get("properties")
    if isinstance(properties, dict) and node.get("type") == "object":
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
        required = [key for key in node.get("required", []) if "default" not in properties.get(key, {})]
        result.pop("required", None)
        if required:
            result["required"] = required
    return result


def messages(validator: Draft202012Validator, job: dict[str, Any]) -> list[str]:
    """Return what a schema has against a job, with the path of each."""
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(job)]


def _spec(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]


def _cluster(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]


def _head(job: dict[str, Any]) -> dict[str, Any]:
    return _cluster(job)["headGroupSpec"]


def _gpu(job: dict[str, Any]) -> dict[str, Any]:
    return next(group for group in _cluster(job)["workerGroupSpecs"] if group["groupName"] == "gpu-spot")


def _cpu(job: dict[str, Any]) -> dict[str, Any]:
    return next(group for group in _cluster(job)["workerGroupSpecs"] if group["groupName"] == "cpu-data")


def _options(job: dict[str, Any]) -> dict[str, Any]:
    return _cluster(job)["autoscalerOptions"]


def _pod(group: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda job: group(job)["template"]["spec"]


def _container(
    group: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda job: group(job)["template"]["spec"]["containers"][0]


def _limits(job: dict[str, Any]) -> dict[str, Any]:
    return _container(_gpu)(job)["resources"]["limits"]


def test_rayjob_passes_our_schema(schema: Draft202012Validator) -> None:
    assert messages(schema, load("rayjob.yaml")) == []


def test_rayjob_passes_kuberays_crd(upstream: Draft202012Validator) -> None:
    assert messages(upstream, load("rayjob.yaml")) == []


def test_rayjob_keeps_our_rules() -> None:
    assert rayjob_rules.faults(load("rayjob.yaml"), claims()) == []


MISTAKES = [
    (_spec, "backofLimit", 2),
    (_spec, "backoffLimit", "two"),
    (_cluster, "rayversion", "2.60.0"),
    (_cluster, "enableInTreeAutoscaling", "yes"),
    (_cluster, "authOptions", {"mode": "tokens"}),
    (_cluster, "autoscalerOptions", {"version": "v2", "upscalingMode": "Fast", "idleTimeoutSeconds": 300}),
    (_head, "rayStartParams", {"num-cpus": 0}),
    (_gpu, "maxReplica", 8),
    (_gpu, "minReplicas", "0"),
    (_pod(_gpu), "terminationGracePeriod", 120),
    (_pod(_gpu), "tolerations", {"key": "nvidia.com/gpu"}),
    (_container(_gpu), "volumeMount", []),
    (
        _container(_head),
        "env",
        [{"name": "WANDB_API_KEY", "valueFrom": {"secretRef": {"name": "corgi-secrets"}}}],
    ),
]


@pytest.mark.parametrize(("part", "key", "value"), MISTAKES)
def test_our_schema_refuses(
    schema: Draft202012Validator, part: Callable[[dict[str, Any]], dict[str, Any]], key: str, value: Any
) -> None:
    job = load("rayjob.yaml")
    part(job)[key] = value
    assert messages(schema, job)


def test_our_schema_refuses_what_the_crd_leaves_open(schema: Draft202012Validator) -> None:
    for key, value in {"submissionMode": "K8sJob", "shutdownAfterJobFinishes": False}.items():
        job = load("rayjob.yaml")
        _spec(job)[key] = value
        assert messages(schema, job), key


def test_kuberays_crd_refuses_the_same_mistakes(upstream: Draft202012Validator) -> None:
    for part, key, value in MISTAKES:
        job = load("rayjob.yaml")
        part(job)[key] = value
        assert messages(upstream, job), key


DROP = object()
BREAKS = [
    (_cluster, "rayVersion", "2.59.0", "is not the lock's"),
    (_container(_gpu), "image", "corgi:2.59.0", "different images"),
    (_container(_head), "image", "corgi:latest", "is not Ray"),
    (
        _spec,
        "entrypoint",
        "python pipelines/prior.py pipelines/recipes/r.yaml root=/mnt/corgi",
        "pipelines/full.py",
    ),
    (
        _spec,
        "entrypoint",
        "python pipelines/full.py pipelines/recipes/none.yaml root=/mnt/corgi",
        "there is no recipe",
    ),
    (
        _spec,
        "entrypoint",
        "python pipelines/full.py pipelines/recipes/r.yaml root=runs",
        "not an absolute path",
    ),
    (
        _spec,
        "entrypoint",
        "python pipelines/full.py pipelines/recipes/r.yaml root=/tmp/runs",
        "shared volume of gpu-spot",
    ),
    (_spec, "entrypoint", "python pipelines/full.py pipelines/recipes/r.yaml", "not an absolute path"),
    (_head, "rayStartParams", {}, "the head offers CPUs"),
    (_pod(_head), "tolerations", [{"key": "node-lifecycle"}], "the head may land on spot"),
    (_gpu, "minReplicas", 1, "does not hold"),
    (_gpu, "maxReplicas", -1, "does not hold"),
    (_limits, "nvidia.com/gpu", 8, "GPU requests differ"),
    (_cluster, "rayVersion", DROP, "rayVersion is missing"),
    (_cluster, "authOptions", DROP, "authOptions.mode is not token"),
    (_spec, "preRunningDeadlineSeconds", DROP, "preRunningDeadlineSeconds is missing"),
    (_options, "idleTimeoutSeconds", 0, "autoscalerOptions.idleTimeoutSeconds is below 60"),
    (_options, "env", [], "RAY_AUTOSCALER_PENDING_NODE_IDLE_TIMEOUT_S of the autoscaler is not 60"),
    (
        _container(_head),
        "env",
        [{"name": "RAY_enable_autoscaler_v2", "value": "1"}],
        "the autoscaler's version is given twice",
    ),
    (_pod(_head), "restartPolicy", "Always", "head has restartPolicy Always"),
    (_pod(_gpu), "restartPolicy", "OnFailure", "gpu-spot has restartPolicy OnFailure"),
    (_head, "resources", {"CPU": "0"}, "head has resources twice"),
    (_gpu, "rayStartParams", {"labels": "corgi/work=gpu"}, "which the operator refuses"),
    (_gpu, "labels", DROP, "gpu-spot has no label corgi/work"),
    (_gpu, "labels", {"corgi/work": "gpus", "ray.io/market-type": "spot"}, "unknown label corgi/work=gpus"),
    (_gpu, "labels", {"corgi/work": "cpu", "ray.io/market-type": "spot"}, "for CPU work and has GPUs"),
    (_gpu, "priority", 0, "gpu-spot is on spot and does not come before gpu-on-demand"),
    (_cpu, "priority", 5, "cpu-data has a priority and no twin"),
    (_cpu, "idleTimeoutSeconds", 0, "cpu-data is idle 0 s"),
    (_gpu, "replicas", 9, "does not hold"),
    (_limits, "memory", "8Gi", "above its limit"),
    (_pod(_gpu), "terminationGracePeriodSeconds", 100, "ends after 100 s, before its drain of 100 s"),
    (_pod(_gpu), "terminationGracePeriodSeconds", DROP, "ends after 30 s, before its drain of 100 s"),
    (
        _container(_gpu),
        "env",
        [{"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": "75"}],
        "a drain of 75 s is too short for a look, a step and a checkpoint, 75 s",
    ),
    (_container(_gpu), "env", [], "a drain of 30 s is too short"),
    (_pod(_gpu), "tolerations", [], "does not tolerate"),
    (_pod(_gpu), "volumes", [], "are not what is mounted"),
    (_container(_gpu), "volumeMounts", [], "shared memory is no memory volume"),
    (_container(_gpu), "env", [], "WANDB_API_KEY does not reach"),
    (_container(_gpu), "env", [{"name": "WANDB_API_KEY", "value": "0"}], "is written into the file"),
]


@pytest.mark.parametrize(("part", "key", "value", "fault"), BREAKS)
def test_our_rules_refuse(
    part: Callable[[dict[str, Any]], dict[str, Any]], key: str, value: Any, fault: str
) -> None:
    job = load("rayjob.yaml")
    if value is DROP:
        del part(job)[key]
    else:
        part(job)[key] = value
    found = rayjob_rules.faults(job, claims())
    assert any(fault in line for line in found), found


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ({"name": "other-secrets", "key": "WANDB_API_KEY", "optional": True}, "README.md does not say"),
        ({"name": "corgi-secrets", "key": "WANDB_KEY", "optional": True}, "README.md does not say"),
        ({"name": "corgi-secrets", "key": "WANDB_API_KEY"}, "is not optional"),
    ],
)
def test_our_rules_refuse_a_secret_nobody_makes(reference: dict[str, Any], fault: str) -> None:
    job = load("rayjob.yaml")
    _container(_gpu)(job)["env"] = [{"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": reference}}]
    assert any(fault in line for line in rayjob_rules.faults(job, claims()))


def test_our_rules_refuse_a_claim_nobody_declares() -> None:
    assert any("declared nowhere" in line for line in rayjob_rules.faults(load("rayjob.yaml"), set()))


CHOICES = ["submissionMode: SidecarMode", "labels: {kueue", "annotations: {kueue"]


@pytest.mark.parametrize("choice", CHOICES)
def test_choices_in_comments_keep_schema_and_rules(choice: str, schema: Draft202012Validator) -> None:
    job = chosen(choice)
    assert messages(schema, job) == []
    assert rayjob_rules.faults(job, claims()) == []


@pytest.mark.parametrize("choice", CHOICES)
def test_choices_in_comments_pass_kuberays_crd(choice: str, upstream: Draft202012Validator) -> None:
    assert messages(upstream, chosen(choice)) == []


def chosen(choice: str) -> dict[str, Any]:
    """Return the job with one of its commented choices taken."""
    text = (CLUSTER / "kuberay" / "rayjob.yaml").read_text()
    assert text.count(f"# {choice}") == 1
    text = text.replace("\n  submissionMode: K8sJobMode", "").replace(f"# {choice}", choice)
    if "SidecarMode" not in choice:
        text = text.replace("\nspec:\n", "\nspec:\n  submissionMode: K8sJobMode\n", 1)
    return yaml.safe_load(text)


def test_head_is_not_evicted_and_workers_may_be() -> None:
    budget = load("disruption.yaml")
    assert (budget["apiVersion"], budget["kind"]) == ("policy/v1", "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 0
    selected = dict(budget["spec"]["selector"]["matchLabels"])
    assert selected.pop("ray.io/node-type") == "head", "the operator labels pods head or worker"
    assert selected.items() <= _head(load("rayjob.yaml"))["template"]["metadata"]["labels"].items()


def test_volume_can_be_written_by_every_pod() -> None:
    assert load("storage.yaml")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_network_policy_covers_every_ray_pod_and_admits_only_neighbours() -> None:
    policy = load("network-policy.yaml")["spec"]
    selected = policy["podSelector"]["matchLabels"].items()
    job = load("rayjob.yaml")
    for group in [_head(job), *_cluster(job)["workerGroupSpecs"]]:
        assert selected <= group["template"]["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress"]
    sources = [source for rule in policy["ingress"] for source in rule["from"]]
    assert sources
    assert all("podSelector" in source and "ipBlock" not in source for source in sources)
    assert all(source["podSelector"] for source in sources if "namespaceSelector" in source)
