"""What a run shows: its own lines and errors. All else is in the log, at once, whoever printed it and however the run ends."""

import fcntl
import itertools
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from corgi.flow import screen
from corgi.flow.screen import FIRST_LINE_S, LONGEST_S, Screen
from tests.support import aside_stages
from tests.support.toy_command import Toy
from tests.support.waiting import PATIENCE_S

CHATTER = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from corgi.flow import screen
with screen.opened(Path(sys.argv[1])) as shown:
    shown.say("stage: 3 in = 3 kept + 0 rejected")
    print("chatter of print")
    print("chatter on stderr", file=sys.stderr)
    warnings.warn("chatter of a warning")
    logging.warning("chatter of a logger")
    os.write(1, b"chatter of C\\n")
    os.write(2, b"chatter of C on stderr\\n")
    subprocess.run(["sh", "-c", "echo chatter of a child; echo chatter of a child on stderr >&2"])
    exec(sys.argv[2])
print("after")
print("error after", file=sys.stderr)
"""
SPOKEN = 8


def chatter(log: Path, last: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHATTER, str(log), last]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


def test_the_screen_has_our_lines_only_and_the_log_has_everything(tmp_path):
    log = tmp_path / "logs" / "one.log"
    done = chatter(log, "pass")
    shown, after = done.stdout.splitlines()
    assert shown.endswith("] stage: 3 in = 3 kept + 0 rejected")
    assert (after, done.stderr) == ("after", "error after\n")
    assert log.read_text().count("chatter") == SPOKEN + log.read_text().count('warnings.warn("chatter')
    assert shown in log.read_text()


def test_nothing_is_lost_when_the_process_is_killed(tmp_path):
    done = chatter(tmp_path / "log", "os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    assert "chatter" not in done.stdout + done.stderr
    assert (tmp_path / "log").read_text().count("chatter") >= SPOKEN


def test_a_crash_shows_its_traceback_on_the_screen_and_in_the_log(tmp_path):
    done = chatter(tmp_path / "log", "1 / 0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "chatter" not in done.stderr.replace(CHATTER, "")
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "| head -c 0"])
def test_a_screen_that_is_gone_does_not_end_the_work(tmp_path, closed):
    log = tmp_path / "log"
    again = "[shown.say(f'line {n}') for n in range(5)]"
    line = f'"$0" -c "$1" "$2" "$3" {closed}'
    command = ["sh", "-c", line, sys.executable, CHATTER, str(log), again]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "chatter" not in done.stdout + done.stderr
    for text in ("line 4", "chatter of C", "chatter of C on stderr", "chatter of a child"):
        assert f"{text}\n" in log.read_text()


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(screen.time, "monotonic", lambda: self.now)


def test_without_a_terminal_a_bar_is_plain_lines_at_a_bounded_rate(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    shown, times = Screen(sys.stdout, sys.stderr), []
    hours = 10
    with shown.bar("download", hours * 3600, "shard") as bar:
        for second in range(1, hours * 3600 + 1):
            clock.now += 1
            bar.reach(second, "99.0% of 7 rows kept")
            if capsys.readouterr().out:
                times.append(second)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == FIRST_LINE_S
    assert gaps == sorted(gaps)
    assert max(gaps) == LONGEST_S
    assert len(times) < 10 + hours * 3600 / LONGEST_S


def test_a_plain_line_says_how_far_the_work_is(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with Screen(sys.stdout, sys.stderr).bar("download", 9, "shard") as bar:
        clock.now += FIRST_LINE_S
        bar.reach(3, "99.0% of 7 rows kept")
    assert capsys.readouterr() == ("[  10.0 s] download: 3 of 9 shards, 99.0% of 7 rows kept\n", "")


def test_work_of_which_nothing_is_done_is_no_line_and_its_time_passes(monkeypatch, capsys):
    clock, said = Clock(monkeypatch), []
    with Screen(sys.stdout, sys.stderr).bar("decoder", 9, "step") as bar:
        for second in range(1, 41):
            clock.now += 1
            bar.reach(0 if second < 20 else 5)
            said += [second] * bool(capsys.readouterr().out)
    assert said == [3 * FIRST_LINE_S]


def test_short_work_is_no_line(capsys):
    with Screen(sys.stdout, sys.stderr).bar("plan", 2, "shard") as bar:
        bar.reach(1)
        bar.reach(2)
    assert capsys.readouterr() == ("", "")


ON_TERMINAL = """
import sys, time
from pathlib import Path
from corgi.flow import screen
with screen.opened(Path(sys.argv[1])) as shown:
    shown.begin("download: runs")
    shown.begin("embed: runs")
    time.sleep(0.2)
    with screen.bar("download", 3, "shard") as bar:
        for n in range(1, 4):
            time.sleep(0.6)
            print("chatter", flush=True)
            bar.reach(n, f"{n} rows")
            shown.line(f"line {n}")
    shown.line("end")
    shown.begin("evaluate: runs")
"""


def test_a_terminal_has_one_bar_that_lines_pass_and_that_goes_at_its_end(tmp_path):
    log = tmp_path / "log"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-c", ON_TERMINAL, str(log)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = read_all(ours)
    assert process.returncode == 0
    assert "chatter" not in text
    assert "download:  67%" in text
    assert "2 rows" in text
    assert "download: runs" in text
    finished = [
        line.rpartition("\r")[2].removeprefix("\x1b[K") for line in text.replace("\r\n", "\n").split("\n")
    ]
    assert [line.strip() for line in finished if line.strip()] == ["line 1", "line 2", "line 3", "end"]
    assert log.read_text().count("chatter") == 3


def read_all(terminal: int) -> str:
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            return text.decode()
        text += part


def log_of(root: Path) -> str:
    (log,) = (root / "toy" / "logs").glob("*.log")
    return log.read_text()


def test_a_run_names_its_log_first_and_the_log_has_its_lines(toy):
    assert toy.run() == 0
    first, *others = toy.said.splitlines()
    assert Path(first.removeprefix("log: ")).resolve().parent == toy.root / "toy" / "logs"
    assert all(line in log_of(toy.root) for line in others)


def test_a_users_error_is_one_line_and_the_log_says_where_it_came_from(toy, one_line):
    toy.steer(refuse="squares")
    one_line(toy.run(), "InputError", "the numbers are odd")
    assert "Traceback" in log_of(toy.root)
    assert "InputError: the numbers are odd" in log_of(toy.root)


@pytest.mark.slow
def test_what_a_stage_beside_prints_is_in_the_log_of_its_command(tmp_path):
    command = Toy(aside_stages)
    root = command.root(tmp_path)
    (root / "chatter").touch()
    (root / "refuse").write_text("left")
    code, out, err = command.run(root)
    assert code == 3
    assert "chatter" not in out + err
    assert [line.partition(":")[0] for line in err.splitlines()] == ["InputError", "InputError"]
    log = log_of(root)
    assert all(
        f"chatter of {name} on {where}" in log for name in ("left", "right") for where in ("stdout", "stderr")
    )


def test_looking_writes_no_log(finished):
    before = len(list((finished.root / "toy" / "logs").iterdir()))
    for flag in ("--plan", "--status", "--lineage", "--verify"):
        assert finished.run(flag) == 0
    assert len(list((finished.root / "toy" / "logs").iterdir())) == before


def test_a_second_command_has_a_log_of_its_own(finished):
    time.sleep(1.1)
    assert finished.run() == 0
    assert len(list((finished.root / "toy" / "logs").iterdir())) == 2
