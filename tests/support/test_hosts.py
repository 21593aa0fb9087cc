"""Hosts are apart: own addresses, processes and folders; what is cut or lost is silent, and nothing is left behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import CHECKOUT, SHARED, Host, Hosts, open_hosts
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
OWN = ("/tmp/note", "/dev/shm/note")  # noqa: S108 - of a host
SOURCES = {"PYTHONPATH": str(CHECKOUT)}
OPENS = """
import sys, time
from pathlib import Path
from tests.support.hosts import open_hosts
with open_hosts(Path(sys.argv[1])) as hosts:
    print(hosts.add("one").pid, hosts.add("two").pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with open_hosts(tmp_path_factory.mktemp("hosts") / "world") as opened:
        yield opened


@pytest.fixture(scope="module")
def pair(hosts: Hosts) -> tuple[Host, Host]:
    return hosts.add("one"), hosts.add("two")


def listening(host: Host, port: int) -> subprocess.Popen[str]:
    """Start a server that accepts one connection after another."""
    text = (
        f"import socket; s = socket.create_server(('', {port})); print('up', flush=True)\nwhile 1: s.accept()"
    )
    server = host.start("python", "-S", "-c", text)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    return server


def reaches(host: Host, name: str, port: int) -> bool:
    text = f"import socket; socket.create_connection(({name!r}, {port}), 1).close()"
    return host.run("python", "-S", "-c", text).returncode == 0


def ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}/ns").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_a_host_reaches_the_others_by_name_until_its_cable_is_pulled(
    hosts: Hosts, pair: tuple[Host, Host]
) -> None:
    one, two = pair
    server = listening(one, 7000)
    assert reaches(two, "one", 7000)
    hosts.cut(two)
    assert not reaches(two, "one", 7000)
    hosts.mend(two)
    assert reaches(two, "one", 7000)
    one.signal(server, signal.SIGKILL)
    assert server.wait() != 0


def test_law_no_way_leads_out_of_the_hosts(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    links = one.checked("ip", "-brief", "link").splitlines()
    assert {line.split("@")[0].split()[0] for line in links} == {"lo", "eth0"}
    assert one.run("getent", "hosts", "example.org").returncode != 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not reaches(one, "127.0.0.1", server.getsockname()[1])


def test_folders_are_a_hosts_own_but_for_the_shared_one(hosts: Hosts, pair: tuple[Host, Host]) -> None:
    one, two = pair
    one.checked("bash", "-c", f"echo ours > {SHARED}/note; echo mine | tee {' '.join(OWN)} ~/note")
    assert two.checked("cat", f"{SHARED}/note") == "ours\n"
    assert (hosts.shared / "note").read_text() == "ours\n"
    assert two.run("cat", *OWN).returncode != 0
    assert one.checked("hostname") == "one\n"
    told = one.checked("python", "-c", "import tests; print(tests.__file__)", environment=SOURCES)
    assert Path(told.strip()).parents[1] == CHECKOUT, "a checkout and an environment below /tmp are seen too"


def test_processes_without_a_parent_are_reaped(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    one.checked("bash", "-c", "(sleep 0.05 &)")
    wait_until(lambda: len(one.processes()) == 2, "only the host's first process and its sleep are left")


def test_a_lost_host_takes_every_process_with_it_and_its_name_can_be_used_again(hosts: Hosts) -> None:
    lost = hosts.add("three")
    running = listening(lost, 7001)
    lost.run("bash", "-c", "setsid --fork sleep 1000 > /dev/null 2>&1")
    assert len(lost.processes()) >= 4
    lost.lose()
    assert running.wait() != 0
    assert lost.processes() == []
    again = hosts.add("three")
    assert again.address != lost.address
    assert again.checked("getent", "hosts", "three").split()[0] == again.address


def test_what_a_host_sends_can_be_limited(hosts: Hosts) -> None:
    host = hosts.add("narrow")
    hosts.limit(host, 50)
    assert "rate 50Mbit" in host.checked("tc", "qdisc", "show", "dev", "eth0")


def test_a_command_that_takes_too_long_is_ended_on_the_host(pair: tuple[Host, Host]) -> None:
    one, _ = pair
    with pytest.raises(AssertionError, match=r"not within 0 s"):
        one.run("sleep", "1000", timeout_s=0.2)
    wait_until(lambda: len(one.processes()) == 2, "the command has ended")


def test_law_nothing_is_left_even_of_hosts_whose_opener_was_killed(tmp_path: Path) -> None:
    opener = subprocess.Popen(
        [sys.executable, "-c", OPENS, str(tmp_path / "world")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert opener.stdout is not None
    pids = [int(pid) for pid in opener.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(opener.pid, signal.SIGKILL)
    opener.communicate()
    wait_until(lambda: all(ended(pid) for pid in pids), "the hosts have ended")
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert "port" not in links
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
