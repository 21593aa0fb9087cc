"""When figures may be recorded: an idle machine before, and no other process at work meanwhile."""

import subprocess
import sys
import time

import pytest

from benchmarks.load import MAX_LOAD, MAX_SHARE, WINDOW_S, Machine, Watch, wait_until_idle


class Planted:
    """Readings that a test plants: loads in turn, and each process's share of a core."""

    def __init__(self, *loads: float, **shares: float) -> None:
        self.loads, self.shares, self.now = list(loads), shares, 0.0

    def load(self):
        return self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]

    def others(self):
        return {(number, name): self.now * share for number, (name, share) in enumerate(self.shares.items())}


def watched(readings: Planted, *seconds: float) -> Watch:
    watch = Watch(readings)
    for readings.now in seconds:
        watch.look(readings.now)
    return watch


@pytest.mark.parametrize(
    ("load", "share", "refused"),
    [
        (0.0, 0.0, []),
        (MAX_LOAD, MAX_SHARE, []),
        (MAX_LOAD + 0.01, 0.0, ["the load before was 0.51"]),
        (7.3, 0.0, ["the load before was 7.30"]),
        (0.1, MAX_SHARE + 0.01, ["(compiler) took 21% of a core"]),
        (7.3, 1.5, ["the load before was 7.30", "(compiler) took 150% of a core"]),
    ],
)
def test_figures_are_refused_for_the_load_before_and_for_other_processes(load, share, refused):
    objections = watched(Planted(load, compiler=share, editor=0.01), 5, 10, 15).objections()
    assert len(objections) == len(refused)
    assert all(words in told for words, told in zip(refused, objections, strict=True))


def test_what_others_did_before_the_first_look_does_not_count():
    readings = Planted(0.0, compiler=1.0)
    watch = watched(readings, 100)
    readings.shares = {"compiler": 0.0}
    readings.others = lambda: {(0, "compiler"): 100.0}
    watch.look(200)
    assert watch.objections() == []


def test_the_busiest_window_counts_and_not_the_mean():
    readings = Planted(0.0, compiler=0.0)
    watch, used = Watch(readings), 0.0
    for window in range(20):
        used += WINDOW_S if window == 7 else 0.0
        readings.others = lambda used=used: {(1, "compiler"): used}
        watch.look((window + 1) * WINDOW_S)
    assert watch.objections() == ["process 1 (compiler) took 100% of a core, 20% at most"]


def test_waiting_for_an_idle_machine_ends_at_its_time():
    assert wait_until_idle(5.0, Planted(0.2))
    assert not wait_until_idle(0.0, Planted(3.0))


BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def test_a_process_of_this_machine_is_seen_and_children_of_the_benchmark_are_its_own():
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            strange, own = Machine(own=busy.pid + 10**7), Machine()
            watch = Watch(strange)
            watch.look(time.monotonic())
            before = {pid: seconds for (pid, _), seconds in strange.others().items()}
            end = time.monotonic() + 30
            while dict(pids(strange))[busy.pid] < before[busy.pid] + 0.5 and time.monotonic() < end:
                time.sleep(0.1)
            assert dict(pids(strange))[busy.pid] >= before[busy.pid] + 0.5
            assert busy.pid not in dict(pids(own))
        finally:
            busy.kill()


ORPHAN = """
import subprocess, sys
sleeper = "import time; print('awake', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", sleeper], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()  # a process whose exec is under way has no environment yet
print(child.pid, flush=True)
"""


def test_a_child_whose_parent_has_ended_is_still_the_benchmarks_own():
    own = Machine()
    done = subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, check=True)
    orphan = int(done.stdout)
    try:
        assert orphan in dict(pids(Machine(own=orphan + 10**7)))
        assert orphan not in dict(pids(own))
    finally:
        subprocess.run(["kill", str(orphan)], check=True)


def pids(machine: Machine):
    return [(pid, seconds) for (pid, _), seconds in machine.others().items()]
