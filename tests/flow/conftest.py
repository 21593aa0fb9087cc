"""A toy pipeline in a folder of its own, run in this process or in one of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corgi.flow import command
from corgi.tables.run import Run
from tests.support import toy_stages

ALL = [*(f"numbers/{n:05d}" for n in range(4)), *(f"squares/{n:05d}" for n in range(4)), "total/all"]


class Toy:
    """The toy's root, its recipe, and what its bodies did."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.recipe = root / "recipe.yaml"
        self.recipe.write_text(f"{toy_stages.RECIPE}root: {root}\n")
        self._capture = capture
        self.said = self.complained = ""

    @property
    def argv(self) -> list[str]:
        return [str(self.recipe)]

    def run(self, *arguments: str) -> int:
        """Run in this process; `said` and `complained` are what it printed."""
        self._capture.readouterr()
        code = command.main(toy_stages.stages, toy_stages.report, argv=[*self.argv, *arguments])
        self.said, self.complained = self._capture.readouterr()
        return code

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run in a process of its own."""
        line = [sys.executable, "-m", "tests.support.toy_stages", *self.argv, *arguments]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def steer(self, **files: str) -> None:
        for name, text in files.items():
            (self.root / name).write_text(text)

    def release(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink()

    def made(self) -> list[str]:
        """Return the shards made since the last time this was asked."""
        log = self.root / "made.txt"
        lines = log.read_text().split() if log.exists() else []
        log.write_text("")
        return lines

    def opened(self) -> Run:
        return Run.open(self.root / "toy")

    def total(self) -> int:
        run = self.opened()
        return run.store.read(run.shards("total")[0], "rows")["n"].to_pylist()[0]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Toy:
    """A toy that has not run; whatever Ray other tests use stays up."""
    monkeypatch.setattr(command.cluster, "shutdown", lambda: None)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return Toy(tmp_path, capsys)


@pytest.fixture
def finished(toy: Toy) -> Toy:
    """A toy that has run to its end."""
    assert toy.run() == 0
    assert toy.made() == ALL
    return toy


@pytest.fixture
def one_line(toy: Toy) -> Callable[[int, str, str], None]:
    """Check the message of a user's error: one line, its class first, no traceback, and the words asked for."""

    def check(code: int, kind: str, words: str) -> None:
        assert {"SettingsError": 2, "InputError": 3, "StorageError": 4, "ClusterError": 5}[kind] == code
        lines = toy.complained.splitlines()
        assert len(lines) == 1, toy.complained
        assert lines[0].startswith(f"{kind}: ")
        assert words in lines[0]

    return check
