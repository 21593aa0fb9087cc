"""What listens on a host of tests/support/hosts.py, and whether it serves strangers."""

import re
from dataclasses import dataclass

from tests.support.hosts import Host

_LINE = re.compile(r"^LISTEN\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+(?:\s+users:.*?pid=(\d+))?")
ASKS = """
import sys, grpc
host, port, method = sys.argv[1:]
channel = grpc.insecure_channel(f"{host}:{port}")
call = channel.unary_unary(method, lambda b: b, lambda b: b)
try:
    call(b"", timeout=5)
    print("SERVED")
except grpc.RpcError as error:
    print(error.code().name)
"""
"""Calls a method without a token."""
FETCHES = """
import sys, http.client
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
try:
    connection.request("GET", sys.argv[3])
    response = connection.getresponse()
    if response.status == 200:
        sys.stdout.write(response.read(5000).decode(errors="replace"))
except Exception:
    pass
"""

CONNECTS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("OPEN")
except OSError:
    pass
"""


@dataclass(frozen=True)
class Listener:
    """A socket that accepts connections."""

    address: str
    port: int
    program: str

    @property
    def is_on_loopback(self) -> bool:
        """Return whether only the host itself reaches it."""
        return self.address.strip("[]").removeprefix("::ffff:") in ("127.0.0.1", "::1")


def listeners(host: Host) -> list[Listener]:
    """Return every listening TCP socket of a host."""
    lines = host.checked("ss", "-ltnpH").splitlines()
    found = [match for line in lines if (match := _LINE.match(line))]
    return [Listener(m[1], int(m[2]), _program(host, m[3])) for m in found]


def _program(host: Host, pid: str | None) -> str:
    """Return a name for the program behind a host's process id."""
    told = host.run("cat", f"/proc/{pid}/cmdline").stdout.replace("\0", " ") if pid else ""
    for name, part in PROGRAMS.items():
        if part in told:
            return name
    return told[:120]


PROGRAMS = {
    "gcs_server": "gcs_server",
    "raylet": "raylet/raylet",
    "dashboard": "dashboard/dashboard.py",
    "autoscaler": "autoscaler/_private/monitor.py",
    "autoscaler v2": "autoscaler/v2/monitor.py",
    "dashboard agent": "ray::DashboardAgent",
    "runtime env agent": "ray::RuntimeEnvAgent",
    "client server": "ray.util.client.server",
    "driver or worker": "ray::",
    "idle worker": "default_worker.py",
}
"""Names as in cluster/README.md, and what their command lines hold."""


def called(host: Host, target: str, port: int, method: str) -> str:
    """Return how a server answers a call without a token: `SERVED`, or the name of a gRPC status."""
    return host.run("python", "-c", ASKS, target, str(port), method).stdout.strip().splitlines()[-1]


def fetched(host: Host, target: str, port: int, path: str) -> str:
    """Return what an HTTP request without a token is given; nothing if it is refused, or no HTTP is spoken there."""
    return host.run("python", "-c", FETCHES, target, str(port), path).stdout


def is_open(host: Host, target: str, port: int) -> bool:
    """Return whether a host is let through to a port of another."""
    return "OPEN" in host.run("python", "-c", CONNECTS, target, str(port)).stdout
