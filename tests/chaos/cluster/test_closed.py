"""Strangers on the cluster's network, without a token or with a wrong one: they join nothing, submit nothing, read nothing."""

import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.cluster_readme import README, command
from tests.support.hosts import TMP, Host
from tests.support.open_ports import Listener, called, fetched, listeners
from tests.support.ray_hosts import BY_HAND, JOBS, RayHosts

TOKENS = {"no token": None, "a wrong token": "0" * 64}
METHODS = {
    "gcs_server": ["/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", "/ray.rpc.JobInfoGcsService/GetAllJobInfo"],
    "raylet": ["/ray.rpc.NodeManagerService/GetNodeStats", "/ray.rpc.ObjectManagerService/Pull"],
    "dashboard agent": ["/ray.rpc.ReporterService/CpuProfiling", "/ray.rpc.LogService/ListLogs"],
    "driver or worker": ["/ray.rpc.CoreWorkerService/Exit"],
    "idle worker": ["/ray.rpc.CoreWorkerService/Exit"],
    "client server": ["/ray.rpc.RayletDriver/ClusterInfo", "/ray.rpc.RayletDriver/Init"],
}
"""Methods that each program with gRPC serves; a raylet has one port for each of its two."""
PATHS = ("/api/jobs/", "/nodes?view=summary", "/api/v0/tasks", "/logs", "/")
METRICS = "# HELP"
"""What a port for Prometheus sends: numbers and names of nodes and runs, and no token is asked for."""


@pytest.fixture(scope="module")
def stranger(cluster: RayHosts) -> Host:
    return cluster.hosts.add("stranger")


@pytest.fixture(params=list(TOKENS))
def environment(request: pytest.FixtureRequest, stranger: Host) -> Iterator[dict[str, str]]:
    """Return the environment of a stranger, and give them the token they have."""
    folder = stranger.home / ".ray"
    folder.mkdir(exist_ok=True)
    token = folder / "auth_token"
    token.unlink(missing_ok=True)
    if text := TOKENS[request.param]:
        token.write_text(text)
        token.chmod(0o600)
        yield JOBS
    else:
        yield {**JOBS, "RAY_AUTH_MODE": "disabled"}


def guards() -> dict[str, str]:
    """Return the table of ports in cluster/README.md: program to guard."""
    return dict(re.findall(r"^\| `([^`]+)` \|[^|]*\|[^|]*\| ([^|]*) \|$", README.read_text(), re.MULTILINE))


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_a_stranger_joins_and_submits_nothing(
    cluster: RayHosts, stranger: Host, environment: dict[str, str]
) -> None:
    line = command(BY_HAND, "RAY_AUTH_MODE=token ray start --address").replace("RAY_AUTH_MODE=token ", "")
    join = {"RAY_AUTH_MODE": environment["RAY_AUTH_MODE"]}
    assert stranger.run("bash", "-c", line, environment=join, timeout_s=120).returncode != 0
    text = "import ray; ray.init('head:6379'); print('JOINED')"
    assert "JOINED" not in stranger.run("timeout", "60", "python", "-c", text, environment=join).stdout
    job = ("ray", "job", "submit", "--", "touch", f"{TMP}/stranger")
    assert stranger.run(*job, environment=environment, timeout_s=120).returncode != 0
    assert not (cluster.head.tmp / "stranger").exists()


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_no_port_serves_a_stranger_but_those_that_are_listed_as_open(
    cluster: RayHosts, stranger: Host, promise: Callable[[int, str], None]
) -> None:
    table, metrics, refusing = guards(), 0, 0
    answers: dict[str, set[str]] = {}
    for host in (cluster.head, cluster.workers[0]):
        for found in listeners(host):
            if found.is_on_loopback:
                continue
            assert found.program in table, f"{found} is not in the table of cluster/README.md"
            if METRICS in fetched(stranger, host.address, found.port, "/metrics"):
                assert "metrics" in table[found.program], found
                metrics += 1
                continue
            assert pages(stranger, host, found) == [], found
            told = {called(stranger, host.address, found.port, m) for m in METHODS.get(found.program, [])}
            assert "SERVED" not in told, found
            answers.setdefault(found.program, set()).update(told)
            refusing += 1
    print(answers)
    for program in ("gcs_server", "raylet", "dashboard agent", "client server"):
        assert "UNAUTHENTICATED" in answers[program], f"{program}: no method of it was called at all"
    promise(
        30,
        f"a head and a worker: {refusing} listening ports give a stranger nothing, {metrics} give metrics; each is in the table of cluster/README.md",
    )


def pages(stranger: Host, host: Host, found: Listener) -> list[str]:
    """Return the paths under which a port gives by HTTP more than the dashboard's empty page."""
    given = {path: fetched(stranger, host.address, found.port, path) for path in PATHS}
    return [path for path, text in given.items() if text and "<!doctype html" not in text.lower()]
