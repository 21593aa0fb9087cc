"""What a worker raised is told as the user's own error: its class, its one line. The Ray that a command starts is its machine's own."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from corgi.flow.cluster import _ON_LOOPBACK as ON_LOOPBACK
from corgi.flow.cluster import cause, connect, is_of_this_command
from corgi.settings.errors import ClusterError, CorgiError, InputError, StorageError
from corgi.settings.recipe import Recipe

RECIPE = Recipe(name="tests")


def same(found: CorgiError | None, expected: CorgiError) -> bool:
    return type(found) is type(expected) and str(found) == str(expected)


def test_an_error_is_found_behind_what_hides_it():
    told = InputError("list is bad; nothing was started; Error: mend it")
    wrapped = RuntimeError("stage failed")
    wrapped.__cause__ = told
    assert cause(told) is told
    assert cause(wrapped) is told
    assert cause(ValueError("ours")) is None


def test_a_loop_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert cause(first) is None


def test_a_ray_task_error_gives_back_the_worker_s_error():
    from ray import exceptions

    told = StorageError("disk is full; committed work is safe; make room")
    raised = exceptions.RayTaskError(
        "f", f"Traceback\n  File x\n{type(told).__module__}.StorageError: {told}", told
    )
    assert same(cause(raised), told)
    assert same(cause(raised.as_instanceof_cause()), told)


def test_a_text_of_ray_s_is_looked_through():
    """Ray Data raises its own class, and an actor that cannot start leaves nothing but text."""
    from ray import exceptions

    told = InputError("tower is missing; nothing was started; Error: name one")
    text = f"ray::f()\n  File x, line 3\ncorgi.settings.errors.InputError: {told}\n\nThe above exception was the cause\n\nlast words"
    assert same(cause(exceptions.RayTaskError("f", text, ValueError("udf failed"))), told)
    assert cause(exceptions.RayTaskError("f", "ValueError: of our own", ValueError("of our own"))) is None


def test_a_training_that_failed_on_every_worker_gives_one_error():
    told = InputError("no rows; nothing is lost; add some")

    class Failed(RuntimeError):
        worker_failures = {0: told, 1: RuntimeError("peer left")}  # noqa: RUF012

    assert cause(Failed("2 workers failed")) is told


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("corgi.flow.cluster.check_address", lambda address: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_):
        raise ConnectionError("Could not connect\nto 127.0.0.1:1")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        ClusterError, match=r"Could not connect to 127\.0\.0\.1:1; committed work is safe"
    ) as found:
        connect(RECIPE)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_command_without_an_address_starts_one_ray_of_its_own_on_loopback(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """`local` is what no address is; the Ray that is then started is looked at below."""
    import ray

    started: list[dict[str, Any]] = []
    for name in (*ON_LOOPBACK, "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **asked: started.append(asked))
    connect(Recipe.model_validate({"name": "tests", "cluster": {"num_cpus": 4}}))
    (asked,) = started
    assert (asked["address"], asked["num_cpus"], asked["include_dashboard"]) == ("local", 4, False)
    assert {name: os.environ[name] for name in ON_LOOPBACK} == ON_LOOPBACK
    assert is_of_this_command()


OWN_RAY = """
import json, os, subprocess, sys
from corgi.flow.cluster import connect, shared
from corgi.flow.spot_watcher import drain_node
from corgi.settings.recipe import Recipe

connect(Recipe(name="tests", cluster={"num_cpus": 4}))
import psutil, ray

busy = ray.remote(num_cpus=1)(type("Busy", (), {"reply": lambda self: 1})).remote()
ray.get(busy.reply.remote())
listens = [
    (socket.laddr.ip, process.name())
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
    for socket in process.net_connections("tcp")
    if socket.status == psutil.CONN_LISTEN
]
joins = "import ray; ray.init(); print('joined', int(ray.cluster_resources()['CPU']))"
joined = subprocess.run(
    [sys.executable, "-c", joins], env={**os.environ, **shared()}, check=True, capture_output=True, text=True
)
os.environ |= shared()
drain_node(4e9)
node, draining = ray.get_runtime_context().get_node_id(), ray._private.state.state.get_draining_nodes()
print(json.dumps({"listens": listens, "joined": joined.stdout, "node": node, "draining": draining}))
"""


@pytest.fixture(scope="module")
def own_ray() -> dict[str, Any]:
    """Return what a process with a Ray of its own saw. An actor is a worker that listens, and keeps the drained node busy: an idle one leaves at once."""
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, "-c", OWN_RAY], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_ray_of_one_machine_listens_on_loopback_only_and_the_command_s_other_processes_join_it(
    own_ray: dict[str, Any],
) -> None:
    assert "joined 4" in own_ray["joined"].splitlines()
    assert {"gcs_server", "raylet"} <= {name for _, name in own_ray["listens"]}
    assert {address for address, _ in own_ray["listens"]} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_rays_head_accepts_the_drain_of_the_node_that_runs_here_and_notes_its_deadline(
    own_ray: dict[str, Any],
) -> None:
    """The drain of corgi/flow/spot_watcher.py, here because a Ray is started here."""
    assert own_ray["draining"][own_ray["node"]] == 4_000_000_000_000
