"""A toy pipeline as a user starts it: its stages' module as a script over a root, and what its run then points at."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tests.support.forks import Forks
from tests.support.waiting import PATIENCE_S


class Toy:
    """A toy pipeline's command; `stages` is a module with RECIPE that runs as a script."""

    def __init__(self, stages: ModuleType) -> None:
        """Take the module."""
        self._stages = stages
        self._forks: Forks | None = None

    @contextmanager
    def forked(self, folder: Path) -> Iterator[None]:
        """Run commands as forks of one interpreter meanwhile: they import nothing. `start` starts one of its own all the same."""
        self._forks = Forks(folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield
        finally:
            self._forks.end([])
            self._forks = None

    def root(self, folder: Path) -> Path:
        """Put the recipe into a folder and return it."""
        (folder / "recipe.yaml").write_text(f"{self._stages.RECIPE}root: {folder}\n")
        return folder

    def start(self, root: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start the command."""
        command = [sys.executable, *self._command(root, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, root: Path, *arguments: str) -> tuple[int, str, str]:
        """Run the command to its end; return exit code, standard output and standard error."""
        if self._forks is not None:
            done = self._forks.run(self._command(root, arguments))
            return done.returncode, done.stdout, done.stderr
        process = self.start(root, *arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def _command(self, root: Path, arguments: tuple[str, ...]) -> list[str]:
        return [str(self._stages.__file__), str(root / "recipe.yaml"), *arguments]


def recorded(root: Path) -> dict[str, str]:
    """Return the digest of each stage the run points at."""
    facts = json.loads((root / "toy" / "run.json").read_text())
    return {name: entry["digest"] for name, entry in facts["stages"].items()}
