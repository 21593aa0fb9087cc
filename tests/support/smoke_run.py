"""One small whole run of the demo, with a W&B key in its environment: tables to start from, and traces to look through."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.process_tree import descendants
from tests.support.wandb_server import wandb_server

HOME = Path(__file__).resolve().parents[2]
KEY = "ca9a27" + "0123456789abcdef" * 2 + "e5"
"""As long as W&B wants a key to be."""


@dataclass(frozen=True)
class Smoke:
    """What is left of the run: its folder (root, home, scratch and Ray's session below it) and what was seen on the way."""

    folder: Path
    arguments: frozenset[str]
    keys_heard: frozenset[str]
    steps_heard: tuple[int, ...]

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def overrides(self, root: Path) -> list[str]:
        """Return what a stage's script needs to go on from a copy of this run below `root`."""
        return [
            f"root={root}",
            *(f"plan.input={path}" for path in (self.folder / "site").glob("urls-*.parquet")),
            *(self.folder / "overrides").read_text().splitlines(),
        ]


@contextmanager
def smoke_run() -> Iterator[Smoke]:
    """Run the smoke recipe whole against a W&B that answers."""
    folder = Path(tempfile.mkdtemp(prefix="smoke-", dir="/tmp"))
    try:
        with wandb_server(0.0) as heard:
            seen = _run(folder, heard.address)
        yield Smoke(folder, frozenset(seen), frozenset(heard.keys), tuple(heard.steps))
    finally:
        shutil.rmtree(folder)


def _run(folder: Path, wandb: str) -> set[str]:
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "RAY_TMPDIR": str(folder / "tmp")}
    tracked = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb}
    environment = {**os.environ, **places, **tracked}
    del environment["WANDB_MODE"]
    command = [
        *(sys.executable, str(HOME / "pipelines" / "demo.py"), "--pictures", "300"),
        *("--port", str(free_port()), "--work", str(folder / "site")),
        *("--recipe", "pipelines/recipes/smoke.yaml", f"root={folder / 'runs'}"),
    ]
    seen: set[str] = set()
    with (folder / "said.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=HOME, env=environment)
        while process.poll() is None:
            seen |= {word for pid in (process.pid, *descendants(process.pid)) for word in _arguments(pid)}
            time.sleep(0.2)
    assert process.returncode == 0, (folder / "said.log").read_text()[-5000:]
    flow = next(word for word in seen if word.startswith("download.resolve="))
    others = [word for word in seen if word.startswith(("download.allow_private=", "plan.credit="))]
    (folder / "overrides").write_text("\n".join([flow, *others]))
    return seen


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
