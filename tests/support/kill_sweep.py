"""Stop a committing process at its system calls, one after another, and see whether a second run ends as if nothing had been.

`python -m tests.support.kill_sweep FOLDER MAX_POINTS` prints one JSON object. Each point is a forked process that strace is
attached to, so only the commit's own calls count, none of the interpreter's start.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from corgi.settings.errors import StorageError
from tests.support import commit_script
from tests.support.waiting import PATIENCE_S

CALLS = ("link", "fsync", "openat", "unlink", "mkdir", "rename", "write")
_NAME = {
    "link": "link,linkat",
    "unlink": "unlink,unlinkat",
    "mkdir": "mkdir,mkdirat",
    "rename": "rename,renameat,renameat2",
}
_CALL = re.compile(r"^\d+ +(\w+?)(?:at2?)?\(")


def run(
    root: Path,
    inject: str | None = None,
    log: Path | None = None,
    child: Callable[[Path], None] | None = None,
) -> int:
    """Let a child work under strace, by default commit everything; return its exit status, negative for a signal."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)
        (child or _child)(root)
    os.close(ready)
    command = [
        "strace",
        "-f",
        "-y",
        "-p",
        str(pid),
        "-o",
        str(log or "/dev/null"),
        "-e",
        f"trace={names_of(CALLS)}",
    ]
    tracer = subprocess.Popen(
        [*command, *(("-e", f"inject={inject}") if inject else ())], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    first = tracer.stderr.readline()
    os.write(go, b"g")
    os.close(go)
    status = os.waitpid(pid, 0)[1]
    tracer.communicate(timeout=PATIENCE_S)
    if "attached" not in first:
        raise OSError(f"strace cannot attach: {first.strip()}")
    return os.waitstatus_to_exitcode(status)


def _child(root: Path) -> None:
    try:
        commit_script.main(str(root))
    except StorageError as error:
        os._exit(4 if "\n" not in str(error) else 5)
    except BaseException:
        os._exit(6)
    os._exit(0)


def names_of(calls: tuple[str, ...]) -> str:
    return ",".join(_NAME.get(call, call) for call in calls)


def counts(log: Path) -> Counter[str]:
    """Return how often each call was made in an unbroken run."""
    calls = [found[1] for line in log.read_text().splitlines() if (found := _CALL.match(line))]
    return Counter("openat" if call == "open" else call for call in calls)


def points(made: Counter[str], max_points: int) -> list[tuple[str, int]]:
    """Return (call, number) pairs: every one, or evenly spaced ones when there are too many."""
    every = [(call, number) for call in CALLS for number in range(1, made[call] + 1)]
    step = max(1, -(-len(every) // max_points))
    return every[::step]


def sweep(folder: Path, max_points: int) -> dict[str, object]:
    """Return what became of every point: how many were hit, and which ended otherwise than an unbroken run."""
    log = folder / "unbroken.log"
    commit_script.main(str(folder / "warm"))  # what is imported late is imported here
    commit_script.content(folder / "warm")
    assert run(folder / "unbroken", log=log) == 0
    wanted, made = commit_script.content(folder / "unbroken"), counts(log)
    hit, wrong = Counter[str](), []
    faults = [(call, number, "signal=SIGKILL", -9) for call, number in points(made, max_points)]
    faults += [
        (c, n, "error=ENOSPC", 4) for c, n in points(made, max_points // 2) if c in ("link", "fsync", "write")
    ]
    for call, number, fault, expected in faults:
        root = folder / f"{call}-{number}-{expected}"
        status = run(root, f"{names_of((call,))}:{fault}:when={number}")
        hit[fault] += status == expected
        commit_script.main(str(root))
        if status != expected or commit_script.content(root) != wanted:
            wrong.append([call, number, fault, status])
    return {"made": made, "hit": hit, "points": len(faults), "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(sweep(Path(sys.argv[1]), int(sys.argv[2]))))
