"""What a worker raised is told as the user's own error: its class, its one line."""

import os
import subprocess
import sys

import pytest

from corgi.flow.cluster import cause, connect
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


LISTENERS = """
import os, subprocess, sys
from corgi.flow.cluster import connect, shared
from corgi.settings.recipe import Recipe
connect(Recipe(name="tests", cluster={"num_cpus": 4}))
import psutil, ray
ray.get(ray.remote(lambda: 0).remote())  # a worker listens too
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for socket in process.net_connections("tcp"):
        if socket.status == psutil.CONN_LISTEN:
            print("listens", socket.laddr.ip, process.name())
joins = "import ray; ray.init(); print('joined', int(ray.cluster_resources()['CPU']))"
subprocess.run([sys.executable, "-c", joins], env={**os.environ, **shared()}, check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("address", [None, "local"])
def test_a_ray_of_one_machine_listens_on_loopback_only_and_the_command_s_other_processes_join_it(
    address: str | None,
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "joined 4" in lines
    found = [line.split()[1:] for line in lines if line.startswith("listens")]
    assert {"gcs_server", "raylet"} <= {name for _, name in found}
    assert {address for address, _ in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, found
