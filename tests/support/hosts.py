"""Hosts of a cluster on one machine: network namespaces joined by a switch, for tests of what happens between machines.

    with open_hosts(tmp_path) as hosts:
        head, worker = hosts.add("head"), hosts.add("worker")
        head.run("ray", "start", "--head", "--port=6379")
        worker.run("ray", "start", "--address=head:6379")
        worker.lose()

A host has an address, a loopback device, process ids, a host name, /tmp, /dev/shm and a home of its own. It shares the
other files of this machine, and the folder `hosts.shared` at /mnt/corgi. It reaches the other hosts by name and nothing
else: no interface leads out of the namespaces, and there is no name server. Needs root, util-linux and iproute2.

The namespaces have no names. The kernel removes each of them, with its processes, mounts and interfaces, when its first
process ends, and that one is killed when the thread that opened the hosts ends, however that ends.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.process_tree import descendants
from tests.support.programs import missing, require_program
from tests.support.waiting import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
SHARED = Path("/mnt/corgi")
"""Where every host sees the folder that all of them share."""
TMP = "/tmp"  # noqa: S108 - every host has one of its own
NETWORK = "10.90.0"
_SHM_MIB = 12 * 1024
"""Size of a host's /dev/shm; memory is taken only for what is written there."""
_HOLD = "echo ready; while :; do sleep 3600 & wait; done"
"""A first process that reaps what is left without a parent, as bash does."""
_SET_UP = """
set -e
ip link set lo up
hostname "$NAME"
mount --bind "$NAMES" /etc/hosts
mount --bind /dev/null /etc/resolv.conf
mount -t tmpfs -o size=${SHM_MIB}m tmpfs /dev/shm
mount -t tmpfs tmpfs /mnt
mkdir /mnt/corgi /mnt/tmp
mount --bind "$SHARED" /mnt/corgi
mount --bind /tmp /mnt/tmp
mount --bind "$OWN_TMP" /tmp
for path in $KEPT; do mkdir -p "$path"; mount --bind "/mnt/tmp/${path#/tmp/}" "$path"; done
umount /mnt/tmp
"""


class Host:
    """One machine of the cluster."""

    def __init__(self, name: str, address: str, tmp: Path, first: subprocess.Popen[str]) -> None:
        """Name a host whose first process was started; `tmp` is where this machine sees the host's /tmp."""
        self.name, self.address, self.tmp = name, address, tmp
        self._first = first
        [self.pid, *_] = descendants(first.pid)
        self._namespace = _namespace(self.pid)

    @property
    def home(self) -> Path:
        """Return where this machine sees the host's home."""
        return self.tmp / "home"

    def processes(self) -> list[int]:
        """Return this machine's ids of the host's processes; none once the host is lost."""
        return [pid for pid in _all_processes() if _namespace(pid) == self._namespace]

    def start(
        self,
        *command: str,
        folder: Path | str = TMP,
        environment: Mapping[str, str] | None = None,
        output: IO[str] | int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command on the host, with its output and its errors in one stream."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
        inside = ["bash", "-c", 'cd "$0" && exec "$@"', str(folder), *command]
        return subprocess.Popen(
            [*enter, *inside],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment() | dict(environment or {}),
        )

    def run(
        self,
        *command: str,
        folder: Path | str = TMP,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host to its end; output and errors are in `stdout`."""
        process = self.start(*command, folder=folder, environment=environment)
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as late:
            for pid in descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            out, _ = process.communicate()
            raise AssertionError(f"{' '.join(command)}: not within {timeout_s:.0f} s: {out}") from late
        return subprocess.CompletedProcess(command, process.returncode, out)

    def checked(self, *command: str, **options: Mapping[str, str] | None) -> str:
        """Run a command on the host, assert that it succeeds, and return its output."""
        done = self.run(*command, environment=options.get("environment"))
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
        return done.stdout

    def signal(self, process: subprocess.Popen[str], number: int) -> None:
        """Send a signal to a command started here: nsenter itself hands none on."""
        for pid in descendants(process.pid)[:1]:
            os.kill(pid, number)

    def lose(self) -> None:
        """Take the host away at once: every process of it ends, and no peer gets a last packet."""
        if self._first.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._first.wait()
        if self._first.stdout is not None:
            self._first.stdout.close()


class Hosts:
    """The hosts of one switch."""

    def __init__(self, folder: Path) -> None:
        """Start the switch; `folder` takes what the hosts write."""
        self._folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        self._names = folder / "names"
        self._names.write_text("127.0.0.1 localhost\n")
        self._started: list[Host] = []
        self._switch = _first_process(
            "ip link set lo up; ip link add name switch type bridge; ip link set switch up", {}
        )
        [self._switch_pid, *_] = descendants(self._switch.pid)

    def add(self, name: str) -> Host:
        """Start one more host; a name may be used again after its host was lost."""
        number = len(self._started) + 1
        address = f"{NETWORK}.{number}"
        tmp = self._folder / f"{name}-{number}"
        (tmp / "home").mkdir(parents=True)
        self._note(name, address)
        first = _first_process(_SET_UP, self._places(name, tmp))
        host = Host(name, address, tmp, first)
        self._started.append(host)
        self._wire(host, number)
        return host

    def cut(self, host: Host) -> None:
        """Pull the host's cable: its packets and those to it vanish."""
        self._on_switch("ip", "link", "set", self._port(host), "nomaster")

    def mend(self, host: Host) -> None:
        """Put the cable back."""
        self._on_switch("ip", "link", "set", self._port(host), "master", "switch")

    def lose_packets(self, host: Host, percent: int) -> None:
        """Drop this share of the packets that reach a host; needs nftables."""
        require_program("nft")
        rules = (
            "add table inet loss; add chain inet loss input { type filter hook input priority 0; };"
            f"add rule inet loss input iifname eth0 numgen random mod 100 < {percent} drop"
        )
        host.checked("nft", rules)

    def limit(self, host: Host, mbit_per_s: int) -> None:
        """Limit what a host sends."""
        shape = ("rate", f"{mbit_per_s}mbit", "burst", "64kb", "latency", "100ms")
        host.checked("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *shape)

    def delay(self, host: Host, milliseconds: int) -> bool:
        """Delay what a host sends; return False if this kernel has no netem."""
        command = ("tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{milliseconds}ms")
        return host.run(*command).returncode == 0

    def close(self) -> None:
        """Take every host and the switch away."""
        for host in self._started:
            host.lose()
        if self._switch.poll() is None:
            os.kill(self._switch_pid, signal.SIGKILL)
        self._switch.wait()
        if self._switch.stdout is not None:
            self._switch.stdout.close()

    def _port(self, host: Host) -> str:
        return f"port{self._started.index(host) + 1}"

    def _wire(self, host: Host, number: int) -> None:
        port = self._port(host)
        ends = ("name", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._on_switch("ip", "link", "add", *ends)
        self._on_switch("ip", "link", "set", port, "master", "switch", "up")
        host.checked("ip", "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        host.checked("ip", "link", "set", "eth0", "up")
        # A host has a default route, by which Ray finds the host's own address. This one leads to the other hosts only.
        host.checked("ip", "route", "add", "default", "dev", "eth0")

    def _on_switch(self, *command: str) -> None:
        enter = ("nsenter", f"--target={self._switch_pid}", "--net", "--")
        subprocess.run([*enter, *command], check=True, capture_output=True)

    def _note(self, name: str, address: str) -> None:
        """Add a line to the file that every host sees as /etc/hosts; the file stays the same one, as mounts hold it."""
        lines = [line for line in self._names.read_text().splitlines() if line.split()[1] != name]
        with self._names.open("r+") as file:
            file.write("\n".join([*lines, f"{address} {name}", ""]))
            file.truncate()

    def _places(self, name: str, tmp: Path) -> dict[str, str]:
        kept = {path for path in _needed() if path.is_relative_to(TMP)}
        return {
            "NAME": name,
            "SHM_MIB": str(_SHM_MIB),
            "SHARED": str(self.shared),
            "OWN_TMP": str(tmp),
            "KEPT": " ".join(sorted(map(str, kept))),
            "NAMES": str(self._names),
        }


@contextmanager
def open_hosts(folder: Path) -> Generator[Hosts]:
    """Open a switch without hosts; all hosts end with the block. Without the rights for it the test is skipped with the reason."""
    require_hosts()
    hosts = Hosts(folder)
    try:
        yield hosts
    finally:
        hosts.close()


def require_hosts() -> None:
    """Skip the test that asks where no hosts can be had, with the reason; fail when the environment variable CI is set."""
    for program in ("ip", "tc", "unshare", "nsenter", "setpriv"):
        require_program(program)
    probe = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--uts",
        "--ipc",
        "ip",
        "link",
        "add",
        "type",
        "veth",
    ]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"namespaces are not permitted here: {done.stderr.strip()}")


def copy_checkout(folder: Path) -> Path:
    """Copy the files of this checkout that git knows or would add, as a user's clone, and return the folder."""
    listed = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


def _first_process(set_up: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the first process of new namespaces and wait until they are set up."""
    unshare = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--uts",
        "--ipc",
        "--kill-child",
        "--mount-proc",
    ]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *unshare, "bash", "-c", f"{set_up}\n{_HOLD}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said == "ready\n", said + process.stdout.read()
    wait_until(lambda: descendants(process.pid), "the namespace's first process")
    return process


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _namespace(pid: int) -> str:
    """Return the namespace of a process's ids; empty if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _needed() -> Iterable[Path]:
    """Return the folders of this machine without which a host runs nothing."""
    return {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}


def _environment() -> dict[str, str]:
    """Return the environment of a login on a host: nothing that leads to this machine's own Ray, home or sources."""
    dropped = ("RAY_", "WANDB_", "PYTHONPATH", "TMPDIR", "CORGI_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    own = {"HOME": f"{TMP}/home", "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"}
    return {**kept, **own, "WANDB_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
