"""A Ray cluster on hosts, started as cluster/README.md says under "Start by hand", and jobs submitted to it from a desk.

The head runs no work. Every worker has two CPUs. The desk has the token and a clone, and is no node of the cluster.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from corgi.demo.url_list import HOST, write_url_list
from tests.support.cluster_readme import command
from tests.support.hosts import SHARED, TMP, Host, Hosts, copy_checkout, open_hosts

BY_HAND, SUBMIT = "Start by hand", "Submit, watch, stop, resume, fetch results"
TOKEN = {"RAY_AUTH_MODE": "token"}
JOBS = {**TOKEN, "RAY_ADDRESS": "http://head:8265"}
FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
"""A lost host is given up after 3 looks instead of 5, of 3 s instead of 10."""
SITE_PORT = 8037
CLONE = f"{TMP}/home/corgi"
SCRAPE = "import sys, urllib.request as u; print(u.urlopen(f'http://{sys.argv[1]}/metrics', timeout=20).read().decode())"
RECIPE = "pipelines/recipes/smoke.yaml"
LONGEST_S = 900.0
"""Longest wait for anything a job does."""


class RayHosts:
    """A head, workers, a desk and, where a job fetches, a web site."""

    def __init__(self, hosts: Hosts, environment: Mapping[str, str]) -> None:
        """Start the head and the desk; `environment` is that of Ray on each host."""
        self.hosts = hosts
        self.environment = {**FAST, **environment}
        self.workers: list[Host] = []
        self.desk = hosts.add("desk")
        self.head = self.start_head()
        self.clone = copy_checkout(self.desk.home / "corgi")

    @property
    def shared(self) -> Path:
        """Return where this machine sees the folder that all hosts share."""
        return self.hosts.shared

    def start_head(self) -> Host:
        """Start a host named head and Ray on it; it makes a token, which the desk receives."""
        head = self.hosts.add("head")
        head.checked("bash", "-c", command(BY_HAND, "ray get-auth-token"))
        self._hand_token(head, self.desk)
        head.checked(
            "bash",
            "-c",
            command(BY_HAND, "RAY_AUTH_MODE=token ray start --head"),
            environment=self.environment,
        )
        self.head = head
        return head

    def add_worker(self, name: str, labels: str = "") -> Host:
        """Start one more worker."""
        worker = self.hosts.add(name)
        self._hand_token(self.head, worker)
        self.join(worker, labels)
        self.workers.append(worker)
        return worker

    def join(self, worker: Host, labels: str = "") -> None:
        """Start Ray on a worker."""
        more = f" --num-cpus=2{f' --labels={labels}' if labels else ''}"
        line = command(BY_HAND, "RAY_AUTH_MODE=token ray start --address") + more
        worker.checked("bash", "-c", line, environment=self.environment)

    def lose(self, worker: Host) -> None:
        """Take a worker away at once."""
        self.workers.remove(worker)
        worker.lose()

    def submit(self, name: str, *command_line: str) -> "Job":
        """Submit a command from the clone on the desk; the job's lines are in `job.log`."""
        start, _, _ = command(SUBMIT, "ray job submit --submission-id corgi-2").partition(" -- ")
        return Job(self, f"{start.replace('corgi-2', name)} -- {shlex.join(command_line)}", name)

    def submit_flow(self, name: str, *overrides: str) -> "Job":
        """Submit the smoke recipe."""
        return self.submit(name, "python", "pipelines/full.py", RECIPE, *overrides)

    def busy(self, word: str) -> Host | None:
        """Return a worker on which some process has `word` in its title."""
        return next(
            (host for host in self.workers if any(word in title(pid) for pid in host.processes())), None
        )

    def freeze(self, word: str) -> None:
        """Stop all processes on the workers that have `word` in their title: they neither work nor end until they are killed."""
        for pid in [pid for host in self.workers for pid in host.processes() if word in title(pid)]:
            os.kill(pid, signal.SIGSTOP)

    def scraped(self) -> str:
        """Return what Prometheus would read: the metrics of every address that the head lists."""
        listed = self.head.checked("cat", f"{TMP}/ray/prom_metrics_service_discovery.json")
        targets = [target for group in json.loads(listed) for target in group["targets"]]
        return "".join(self.desk.checked("python", "-c", SCRAPE, target) for target in targets)

    def _hand_token(self, giver: Host, taker: Host) -> None:
        (taker.home / ".ray").mkdir(exist_ok=True)
        token = taker.home / ".ray" / "auth_token"
        token.unlink(missing_ok=True)
        shutil.copy(giver.home / ".ray" / "auth_token", token)
        token.chmod(0o600)


class Job:
    """A submitted job whose output is followed into a file."""

    def __init__(self, cluster: RayHosts, line: str, name: str) -> None:
        """Run the line that submits it, and waits for it, in the clone on the desk."""
        self.log = cluster.desk.tmp / f"{name}.log"
        with self.log.open("w") as file:
            self._process = cluster.desk.start(
                "bash",
                "-c",
                line,
                folder=CLONE,
                environment=JOBS,
                output=file,
            )
        assert self._process.stdin is not None
        self._process.stdin.close()

    def said(self) -> str:
        """Return what the job and the command that submitted it have said so far."""
        return self.log.read_text(errors="replace")

    def is_running(self) -> bool:
        """Return whether the command that submitted the job still follows it."""
        return self._process.poll() is None

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        """Return once `holds()` is true.

        Raises:
            AssertionError: the job ended first, or it took too long.

        """
        end = time.monotonic() + LONGEST_S
        while not holds():
            assert self.is_running(), f"the job ended before {what}: {self.said()[-6000:]}"
            assert time.monotonic() < end, f"not within {LONGEST_S:.0f} s: {what}: {self.said()[-6000:]}"
            time.sleep(0.1)

    def wait(self, timeout_s: float = LONGEST_S) -> str:
        """Wait until the job has succeeded and return its output."""
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not within {timeout_s:.0f} s: {self.said()[-6000:]}") from None
        assert code == 0, self.said()[-6000:]
        return self.said()

    def failed(self) -> str:
        """Wait until the job has failed and return its output."""
        code = self._process.wait(timeout=LONGEST_S)
        assert code != 0, self.said()[-3000:]
        return self.said()


@contextmanager
def ray_hosts(
    folder: Path, num_workers: int = 3, environment: Mapping[str, str] | None = None
) -> Iterator[RayHosts]:
    """Start a cluster; every host ends with the block."""
    with open_hosts(folder) as hosts:
        cluster = RayHosts(hosts, environment or {})
        for number in range(num_workers):
            cluster.add_worker(f"worker-{number}")
        yield cluster


def serve_demo(cluster: RayHosts, num_pictures: int) -> list[str]:
    """Serve a few of the demo's pictures from a host named web; return the settings with which a flow fetches them."""
    collection = packaged()
    pictures = subset(collection.pictures, num_pictures)
    folder = folder_name(collection)
    rasterise(pictures, cluster.shared / folder)
    write_url_list(cluster.shared / "urls.parquet", pictures, collection.credit)
    web = cluster.hosts.add("web")
    command_line = (
        "python",
        "-m",
        "tests.support.web_site",
        str(SHARED / folder),
        web.address,
        str(SITE_PORT),
    )
    site = web.start(*command_line, environment={"PYTHONPATH": _checkout()})
    assert site.stdout is not None
    address = site.stdout.readline().strip()
    assert address == f"{web.address}:{SITE_PORT}", address
    return [
        f"plan.input={SHARED / 'urls.parquet'}",
        f'download.resolve=["{HOST}:80={address}"]',
        f'download.allow_private=["{address}"]',
    ]


def _checkout() -> str:
    return str(Path(__file__).resolve().parents[2])


def title(pid: int) -> str:
    """Return the command line of a process, or what it calls itself; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
