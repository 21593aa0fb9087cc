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

for script in dict.fromkeys(command[0] for command in json.loads(sys.argv[3])):
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="imported")

folder, is_captured = sys.argv[1], sys.argv[2] == "captured"
for number, command in enumerate(json.loads(sys.argv[3])):
    child = os.fork()
    if child == 0:
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
"""
Commands = Sequence[Sequence[str | Path]]
"""Each a script and its arguments."""


def start_forks(
    commands: Commands, folder: Path, captured: bool = False, **streams: Any
) -> subprocess.Popen[str]:
    """Start commands one after the other in the repository's root; `codes` reads how they ended.

    Args:
        commands: the commands.
        folder: where exit codes, and what is captured, are stored.
        captured: whether each command's output goes to files of its own.
        streams: `stdout`, `stderr` and `env` of the process whose forks they are.

    """
    lines = json.dumps([[str(part) for part in command] for command in commands])
    parent = [sys.executable, "-c", _PARENT, str(folder), "captured" if captured else "shared", lines]
    return subprocess.Popen(parent, text=True, cwd=HOME, **streams)


def codes(folder: Path) -> list[int]:
    """Return the exit code of each command that ended, negative for a signal."""
    return [int(line) for line in (folder / "codes").read_text().split()]


def run_forks(commands: Commands, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run commands one after the other; return how each ended and what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    process = start_forks(commands, folder, captured=True, stderr=subprocess.PIPE)
    complaint = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, complaint
    return [
        subprocess.CompletedProcess(
            list(command),
            code,
            (folder / f"{number}.out").read_text(),
            (folder / f"{number}.err").read_text(),
        )
        for number, (command, code) in enumerate(zip(commands, codes(folder), strict=True))
    ]
