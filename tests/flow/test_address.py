"""A Ray cluster that does not answer is one line before Ray, which would wait for minutes, is asked."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import HTTPServer, SimpleHTTPRequestHandler
from threading import Event, Thread

import pytest

from corgi.flow import address as addresses
from corgi.flow.address import ANSWER_TIMEOUT_S, CONNECTION_TIMEOUT_S, check_address
from corgi.settings.errors import ClusterError
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def silent() -> Iterator[str]:
    """Something that accepts connections and says nothing, like the head of a machine that is out of memory."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def line_of(address: str) -> str:
    with pytest.raises(ClusterError) as refused:
        check_address(address)
    line = str(refused.value)
    assert "\n" not in line
    assert address in line
    assert "committed work is safe; " in line
    return line


def test_a_driver_has_30_s():
    assert (
        CONNECTION_TIMEOUT_S + ANSWER_TIMEOUT_S <= 20
    )  # the rest is for Python to start and for gRPC to be imported


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_told_without_asking_ray(monkeypatch, scheme):
    monkeypatch.setattr(addresses, "_answer", lambda *_: pytest.fail("Ray was asked"))
    assert "cannot be reached: Connection refused" in line_of(f"{scheme}127.0.0.1:{free_port()}")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_head_that_accepts_and_never_answers_is_given_up(monkeypatch, silent, scheme):
    monkeypatch.setattr(addresses, "ANSWER_TIMEOUT_S", 0.5)
    assert "accepts connections and does not answer" in line_of(scheme + silent)


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    never = Event()

    def look_up(*_: object) -> None:
        never.wait(60)
        raise OSError

    monkeypatch.setattr(addresses, "CONNECTION_TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", look_up)
    assert "cannot be reached: no connection in" in line_of("head.example:6379")
    never.set()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_web_server_is_no_ray_cluster(monkeypatch, scheme):
    monkeypatch.setattr(addresses, "ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        line_of(f"{scheme}127.0.0.1:{server.server_port}")
        server.shutdown()


def test_another_port_of_a_cluster_is_no_head():
    import grpc

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        assert "is not the port of a Ray head" in line_of(f"127.0.0.1:{port}")
        server.stop(None).wait()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://head.example"])
def test_a_dashboard_takes_jobs_only(address):
    assert "run the same command through `ray job submit" in line_of(address)


@pytest.mark.parametrize(
    "address", ["nowhere", "head.example:", "head.example:port", ":6379", "[::1:6379", "ray://"]
)
def test_what_is_no_address_is_one_line(address):
    assert "is not host:port" in line_of(address)


def test_auto_means_a_cluster_of_this_machine_that_answers(monkeypatch):
    """Ray remembers the last cluster started here, also after it is gone."""
    from ray._private import services

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    assert "finds no Ray cluster on this machine" in line_of("auto")
    gone = free_port()
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {f"127.0.0.1:{gone}"})
    assert f":{gone}) cannot be reached" in line_of("auto")


def test_a_local_ray_has_no_address():
    check_address("local")


@pytest.mark.flow
@pytest.mark.timeout(180)
def test_a_cluster_that_answers_is_let_through(ray_local):
    import ray

    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.parametrize("as_job", [False, True])
def test_the_driver_says_so_before_its_first_stage(toy, one_line, monkeypatch, as_job):
    if as_job:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    assert toy.run("--plan") == 0
    one_line(toy.run(), "ClusterError", "cannot be reached: Connection refused")
    assert toy.made() == []
    monkeypatch.delenv("RAY_ADDRESS")
    assert toy.run() == 0
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    assert toy.run() == 0  # finished work asks for no cluster


@pytest.mark.slow
def test_a_driver_of_a_head_that_never_answers_ends(toy, monkeypatch, silent):
    """Ray itself takes 14 minutes; the bound here is wide, for a busy machine."""
    monkeypatch.setenv("RAY_ADDRESS", silent)
    driver = toy.start()
    complained = driver.communicate(timeout=PATIENCE_S)[1]
    assert driver.returncode == 5, complained
    assert f"RAY_ADDRESS={silent} accepts connections and does not answer" in complained
    assert len(complained.splitlines()) == 1
