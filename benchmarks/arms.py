"""An experiment in arms: each leaves a small file, one that has left a file is not run again, and all files fill a block of a page."""

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

HOME = Path(__file__).resolve().parents[1]
RESULTS = HOME / "docs" / "results"
PAGE = HOME / "docs" / "results.md"

File = Mapping[str, Any]
"""What an arm left, as JSON: what it was, its seconds, its figures."""


class Arm(Protocol):
    """One training or a few, whose figures are one file."""

    @property
    def name(self) -> str:
        """Return the name of the arm and of its file."""
        ...

    @property
    def minutes(self) -> float:
        """Return the minutes announced, on two idle cores."""
        ...


A = TypeVar("A", bound=Arm)


class Experiment(ABC, Generic[A]):
    """Arms of one kind. `name` is that of the page's block, `<!-- arms: NAME -->`, and of the folder below docs/results/."""

    name: str
    page = PAGE
    results = RESULTS

    @abstractmethod
    def run_arm(self, arm: A) -> File:
        """Train what the arm needs; return what its file holds, without the seconds."""

    @abstractmethod
    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield the paragraphs and tables that the files give, which are sorted by name."""

    def plots(self, files: Sequence[File]) -> Mapping[str, bytes]:
        """Return PNG files by their name below docs/images/, which `parts` may show."""
        return {}

    def run(self, arms: Sequence[A], out: Path | None = None) -> None:
        """Run the arms that left no file, and fill the page's block after each. With `out` the tables are printed at the end instead."""
        folder = out or self.results / self.name
        for arm in arms:
            if not self.has_left(arm, folder):
                self._keep(arm, folder)
                print(f"{arm.name}: kept", flush=True)
            if out is None:
                self.fill(folder)
        if out is not None:
            print(self.text(folder))

    def has_left(self, arm: A, folder: Path) -> bool:
        """Return whether an arm's figures are in a folder, so that it is not run again."""
        return (folder / f"{arm.name}.json").exists()

    def fill(self, folder: Path) -> None:
        """Write the block and the plots that the files of a folder give."""
        fill_block(self.page, self.name, self.text(folder), "arms")
        for name, body in self.plots(left_in(folder)).items():
            (self.page.parent / "images" / name).write_bytes(body)

    def text(self, folder: Path) -> str:
        """Return the block that the files of a folder give."""
        return "\n".join(self.parts(left_in(folder)))

    def _keep(self, arm: A, folder: Path) -> None:
        begun = time.perf_counter()
        left = {**self.run_arm(arm), "seconds": round(time.perf_counter() - begun)}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{arm.name}.json").write_text(json.dumps(left, indent=1) + "\n")


def left_in(folder: Path) -> list[File]:
    """Return the files that arms left in a folder, sorted by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def show(arms: Sequence[Arm]) -> None:
    """Print the arms and the minutes announced."""
    for arm in arms:
        print(f"{arm.name:<28} {arm.minutes:g} minutes")
    print(f"{len(arms)} arms, {sum(arm.minutes for arm in arms):g} minutes")


def named(arms: Sequence[A], names: Sequence[str]) -> list[A]:
    """Return the arms of some names, all of no names.

    Raises:
        SystemExit: no arm has one of the names.

    """
    known = {arm.name: arm for arm in arms}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"{unknown[0]} is no arm; nothing was run; --list prints them")
    return [known[name] for name in names] if names else list(arms)


def fill_block(page: Path, name: str, text: str, kind: Literal["figures", "arms"] = "figures") -> None:
    """Write text between a page's marks `<!-- KIND: NAME -->` and `<!-- end -->`; `arms` are of files that arms left."""
    block = re.compile(rf"(<!-- {kind}: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    page.write_text(block.sub(lambda found: f"{found[1]}{text}{found[2]}", page.read_text()))
