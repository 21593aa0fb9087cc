"""What else the machine is doing while a benchmark measures: figures taken beside other work are shown and not recorded."""

import os
import threading
import time
from collections.abc import Mapping
from typing import Protocol

import psutil

MAX_LOAD = 0.5
"""Runnable processes in the minute before a benchmark, at most."""
QUIET_LOAD = 0.3
"""Load to wait for before a benchmark starts: its own imports raise it before the benchmark looks."""
MAX_SHARE = 0.2
"""Of a core that any other process may take over a window of the measurement, at most."""
WINDOW_S = 5.0
_MARK = "CORGI_BENCHMARK"
_KERNEL_THREADS = 2
"""Pid of the parent of all threads of the kernel: what they do, they do for someone."""

Other = tuple[int, str]
"""A process that is not the benchmark's: pid and name."""


class Readings(Protocol):
    """Where the figures of the machine come from."""

    def load(self) -> float:
        """Return the load average of the last minute."""
        ...

    def others(self) -> Mapping[Other, float]:
        """Return the CPU-seconds so far of every process that is not the benchmark's."""
        ...


class Machine:
    """Readings of this machine; a process is the benchmark's when it descends from it or carries its mark."""

    def __init__(self, own: int | None = None) -> None:
        """Mark this process's future children; `own` is the benchmark's pid, by default this process."""
        self._own = own or os.getpid()
        if own is None:
            os.environ[_MARK] = str(self._own)

    def load(self) -> float:
        """Return the load average of the last minute."""
        return os.getloadavg()[0]

    def others(self) -> dict[Other, float]:
        """Return the CPU-seconds so far of every process that is not the benchmark's; what ends meanwhile is left out."""
        found: dict[Other, float] = {}
        parents = {}
        processes = list(psutil.process_iter(["pid", "ppid", "name", "cpu_times"]))
        for process in processes:
            parents[process.pid] = process.info["ppid"]
        for process in processes:
            times = process.info["cpu_times"]
            if times is not None and not self._is_own(process, parents):
                found[process.pid, process.info["name"]] = times.user + times.system
        return found

    def _is_own(self, process: psutil.Process, parents: Mapping[int, int]) -> bool:
        pid: int | None = process.pid
        while pid:
            if pid in (self._own, _KERNEL_THREADS):
                return True
            pid = parents.get(pid)
        try:  # a child whose parent has ended, such as a worker of a Ray that is going down
            return process.environ().get(_MARK) == str(self._own)
        except psutil.Error:
            return False


class Watch:
    """The load before a measurement and the busiest stranger during it."""

    def __init__(self, readings: Readings | None = None) -> None:
        """Read the load; `start` begins to look at the other processes."""
        self._readings = readings or Machine()
        self.load_before = round(self._readings.load(), 2)
        self._seen: Mapping[Other, float] = {}
        self._looked_at = 0.0
        self._busiest: tuple[float, Other | None] = (0.0, None)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Look at the end of every window, from a thread that ends with the process."""
        self.look(time.monotonic())
        threading.Thread(target=self._look_always, name="load", daemon=True).start()

    def load_now(self) -> float:
        """Return the load average of the last minute."""
        return round(self._readings.load(), 2)

    def look(self, now_s: float) -> None:
        """Take each other process's share of a core since the last look; one that is new is counted from now on."""
        with self._lock:
            others, seconds = self._readings.others(), now_s - self._looked_at
            for other, cpu_s in others.items():
                if other in self._seen and seconds > 0:
                    share = (cpu_s - self._seen[other]) / seconds
                    self._busiest = max(self._busiest, (share, other), key=lambda found: found[0])
            self._seen, self._looked_at = others, now_s

    def objections(self) -> list[str]:
        """Return why figures taken under this watch are not recorded; nothing where the machine was idle."""
        found = []
        if self.load_before > MAX_LOAD:
            found.append(f"the load before was {self.load_before:.2f}, {MAX_LOAD} at most")
        share, other = self._busiest
        if other is not None and share > MAX_SHARE:
            found.append(
                f"process {other[0]} ({other[1]}) took {share:.0%} of a core, {MAX_SHARE:.0%} at most"
            )
        return found

    def _look_always(self) -> None:
        while True:
            time.sleep(WINDOW_S)
            self.look(time.monotonic())


def wait_until_idle(timeout_s: float, readings: Readings | None = None) -> bool:
    """Wait until the load is QUIET_LOAD or less; return whether it is."""
    source, end = readings or Machine(), time.monotonic() + timeout_s
    while source.load() > QUIET_LOAD:
        if time.monotonic() >= end:
            return False
        time.sleep(min(5.0, timeout_s))
    return True
