"""Scripts run as commands of their own, in forks of one interpreter: what they all import is imported once."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S

HOME = Path(__file__).resolve().parents[2]
_PARENT = """
import atexit, json, os, runpy, sys, traceback

ended = {}

# Registered first, so it runs last: a fork's C++ threads cannot be joined, and destructors would abort it.
@atexit.register
def leave():
    if "code" in ended:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            traceback.print_exc()
            ended["code"] = 120  # as Python ends when its last flush fails
        os._exit(ended["code"])

import corgi.flow.command

folder, is_captured, imported = sys.argv[1], sys.argv[2] == "captured", set()
for number, command in enumerate(map(json.loads, sys.stdin)):
    if command[0] not in imported:
        imported.add(command[0])
        sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
        runpy.run_path(command[0], run_name="imported")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, name in ((1, "out"), (2, "err")) if is_captured else ():
            os.dup2(os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = command
        sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
        try:
            ended["code"] = 1
            runpy.run_path(command[0], run_name="__main__")
            ended["code"] = 0
        except SystemExit as stop:
            ended["code"] = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            raise
        sys.exit()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(f"{folder}/codes", "a" if number else "w") as codes:
        codes.write(f"{code}\\n")
    if is_captured:
        print(code, flush=True)
"""
Command = Sequence[str | Path]
"""A script and its arguments."""
Commands = Sequence[Command]


class Forks:
    """One interpreter whose forks run commands one after the other in the repository's root, each when it is asked for."""

    def __init__(self, folder: Path, captured: bool = True, **streams: Any) -> None:
        """Start the interpreter.

        Args:
            folder: where exit codes, and what is captured, are stored.
            captured: whether each command's output goes to files of its own.
            streams: `stdout`, `stderr` and `env` of the interpreter, which its forks share where nothing is captured.

        """
        folder.mkdir(parents=True, exist_ok=True)
        parent = [sys.executable, "-c", _PARENT, str(folder), "captured" if captured else "shared"]
        self._folder, self._num_run = folder, 0
        self._process = subprocess.Popen(parent, text=True, cwd=HOME, stdin=subprocess.PIPE, **streams)

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; return how it ended and what it printed."""
        assert self._process.stdin
        assert self._process.stdout
        print(_line(command), file=self._process.stdin, flush=True)
        code = self._process.stdout.readline()
        assert code, self.end([])
        out, err = ((self._folder / f"{self._num_run}.{name}").read_text() for name in ("out", "err"))
        self._num_run += 1
        return subprocess.CompletedProcess(list(command), int(code), out, err)

    def end(self, commands: Commands) -> tuple[str, str]:
        """Run the last commands and end the interpreter; return what it printed, as far as that is piped here."""
        out, err = self._process.communicate("".join(f"{_line(one)}\n" for one in commands), PATIENCE_S)
        return out or "", err or ""


def _line(command: Command) -> str:
    return json.dumps([str(part) for part in command])


def codes(folder: Path) -> list[int]:
    """Return the exit code of each command that ended, negative for a signal."""
    return [int(line) for line in (folder / "codes").read_text().split()]


def run_forks(commands: Commands, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after the other; return how each ended and what it printed."""
    forks = Forks(folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        return [forks.run(command) for command in commands]
    finally:
        forks.end([])
