"""What no node can hold is refused with one line that names stage, need and what is missing."""

from typing import Any

import pytest

from corgi.flow import cluster
from corgi.flow.dag import Step
from corgi.flow.demand import Demand, check, demands
from corgi.flow.node_types import NodeType, NodeTypes, read
from corgi.settings.errors import ClusterError, InputError
from corgi.settings.recipe import Recipe
from tests.cluster.versions import CLUSTER
from tests.support.stages import stage

FILES = ("aws.yaml", "gcp.yaml", "kuberay/rayjob.yaml")


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate({"name": "r", **sections})


def step(name: str, done: bool = False) -> Step:
    """Return a step of a plan; of a finished one only that it is finished matters."""
    manifest: Any = object()
    return Step(stage(name), None, manifest if done else None)


@pytest.mark.parametrize("name", FILES)
def test_cluster_files_are_read_as_they_are_declared(name: str) -> None:
    found = {kind.name: kind for kind in read(str(CLUSTER / name)).types}
    assert (found["head"].cpus, found["head"].gpus, found["head"].max_nodes) == (0, 0, 1)
    assert (found["cpu-data"].cpus, found["cpu-data"].max_nodes) == (16, 16)
    assert (found["gpu-spot"].gpus, found["gpu-spot"].max_nodes, found["gpu-spot"].is_spot) == (4, 8, True)
    assert (found["gpu-on-demand"].max_nodes, found["gpu-on-demand"].is_spot) == (4, False)


@pytest.mark.parametrize("text", ["", "a: b: c", "[1]", "kind: RayJob\nspec: {}", "kind: Pod"])
def test_another_file_is_one_line(text: str, tmp_path: Any) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"cluster\.file=.*c\.yaml is neither a launcher file") as found:
        read(str(tmp_path / "c.yaml"))
    assert "\n" not in str(found.value)


REFUSED = [
    (
        {"embed": {"cpus_per_actor": 8, "gpus_per_actor": 8}},
        "embed",
        r"embed cannot run: each of its workers reserves 8 CPU and 8 GPU.*8 x gpu-spot with (48|32) CPU and 4 GPU.*add a GPU node type.*embed\.gpus_per_actor",
    ),
    ({"download": {"cpus_per_actor": 17}}, "download", r"download cannot run: .*17 CPU.*add a CPU node type"),
    (
        {"download": {"num_actors": 300}},
        "download",
        r"needs 300 workers of 1 CPU, .* has room for at most 256 \(16 x cpu-data.*download\.num_actors to 256 or less",
    ),
    (
        {"prior": {"training": {"use_gpu": True, "num_workers": 64}}},
        "prior",
        r"prior cannot run: it needs 64 workers of 1 CPU and 1 GPU.*prior\.training\.num_workers to 48 or less",
    ),
]


@pytest.mark.parametrize(("sections", "stage", "line"), REFUSED)
@pytest.mark.parametrize("name", FILES)
def test_what_no_node_type_holds_is_refused_before_anything_starts(
    name: str, sections: dict[str, Any], stage: str, line: str
) -> None:
    asked = recipe(cluster={"file": str(CLUSTER / name)}, **sections)
    with pytest.raises(ClusterError, match=line) as found:
        cluster.check_start(asked, lambda: [step(stage)])
    assert "\n" not in str(found.value)
    cluster.check_start(asked, lambda: [step(stage, done=True)])


def test_cpu_work_does_not_count_gpu_nodes_and_unlabelled_nodes_take_all() -> None:
    labelled = NodeTypes("f", [NodeType("gpu", 48, 4, 2, {"corgi/work": "gpu"})], 3)
    with pytest.raises(ClusterError, match="each of its workers reserves 1 CPU"):
        check(Demand("download", 1, 1, 0), labelled)
    check(Demand("download", 96, 1, 0), NodeTypes("f", [NodeType("box", 48, 4, 2)], 3))


def test_all_types_together_stay_below_the_cluster_s_own_maximum() -> None:
    both = NodeTypes("f", [NodeType("a", 4, 0, 8), NodeType("b", 2, 0, 8)], 10)
    assert both.num_workers(1, 0) == 8 * 4 + 2 * 2
    assert both.num_workers(0.5, 0) == 8 * 8 + 2 * 4
    assert both.num_workers(3, 0) == 8


def test_a_training_that_may_shrink_asks_for_its_fewest_workers() -> None:
    training = {"use_gpu": True, "num_workers": 64, "min_workers": 8}
    (found,) = demands(recipe(prior={"training": training}), ["prior"])
    assert (found.num_workers, found.workers_setting) == (8, "prior.training.min_workers")


def test_without_a_file_a_ray_of_this_command_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster.check_start(recipe(), lambda: pytest.fail("the plan was made for nothing"))


def test_a_fixed_cluster_is_asked_and_one_that_grows_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(cluster, "check", lambda: None)
    monkeypatch.setattr(cluster, "connect", lambda _: None)
    monkeypatch.setattr(
        "corgi.flow.node_types.alive", lambda: NodeTypes("the cluster", [NodeType("n", 4, 0, 1)], 1)
    )
    asked = recipe(embed={"gpus_per_actor": 1})
    monkeypatch.setattr(cluster, "has_autoscaler", lambda: False)
    with pytest.raises(ClusterError, match="no node of the cluster that takes such work"):
        cluster.check_start(asked, lambda: [step("embed")])
    cluster.check_start(recipe(embed={"num_actors": 40}), lambda: [step("embed")])
    eight = recipe(prior={"training": {"num_workers": 8}})
    with pytest.raises(
        ClusterError,
        match=r"needs 8 workers of 1 CPU, but the cluster has room for at most 4.*prior\.training\.num_workers to 4",
    ):
        cluster.check_start(eight, lambda: [step("prior")])
    fewer = recipe(prior={"training": {"num_workers": 8, "min_workers": 4}})
    cluster.check_start(fewer, lambda: [step("prior")])
    monkeypatch.setattr(cluster, "has_autoscaler", lambda: True)
    cluster.check_start(asked, lambda: [step("embed")])


def of_memory(*gibs: float) -> NodeTypes:
    types = [NodeType(f"node-{gib:g}", 4, 0, 2, memory=gib * 2**30) for gib in gibs]
    return NodeTypes("the cluster", types, 9)


def test_calls_that_reserve_more_memory_than_a_node_has_are_one_line() -> None:
    (wanted,) = demands(recipe(curate={"task_memory": "3GiB"}), ["curate"])
    check(wanted, of_memory(2, 4))
    check(wanted, of_memory(0))  # a file that does not tell
    with pytest.raises(
        ClusterError,
        match=r"curate cannot run: .*1 CPU and 3\.0 GiB of memory.*2 x node-2 with 4 CPU and 2\.0 GiB.*lower curate\.task_memory",
    ) as found:
        check(wanted, of_memory(1, 2))
    assert "\n" not in str(found.value)


def test_actors_that_reserve_more_memory_than_a_node_has_are_one_line() -> None:
    [wanted] = demands(recipe(embed={"memory_per_actor": "3GiB"}), ["embed"])
    check(wanted, of_memory(4))
    with pytest.raises(
        ClusterError, match=r"embed cannot run: .*3\.0 GiB of memory.*embed\.memory_per_actor"
    ):
        check(wanted, of_memory(1, 2))


def test_memory_of_a_kubernetes_node_is_what_ray_may_reserve_of_its_limit() -> None:
    found = {kind.name: kind.memory / 2**30 for kind in read(str(CLUSTER / "kuberay/rayjob.yaml")).types}
    assert found["cpu-data"] == pytest.approx(0.7 * 64)
    assert all(not kind.memory for kind in read(str(CLUSTER / "aws.yaml")).types)


def test_a_plan_says_so_too_and_starts_nothing(monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    huge = recipe(curate={"task_memory": "4000GiB"})
    with pytest.raises(ClusterError, match=r"curate cannot run.*no node of this machine"):
        cluster.check_memory(huge, ["download", "curate"])
    cluster.check_memory(huge, ["download"])
    cluster.check_memory(recipe(), ["curate"])
    file = {"file": str(CLUSTER / "kuberay/rayjob.yaml")}
    cluster.check_memory(recipe(curate={"task_memory": "40GiB"}, cluster=file), ["curate"])
    with pytest.raises(ClusterError, match=r"100\.0 GiB"):  # only its GPU nodes have as much
        cluster.check_memory(recipe(curate={"task_memory": "100GiB"}, cluster=file), ["curate"])
