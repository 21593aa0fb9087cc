"""Figures of a benchmark: one printed line each, a file of rows with machine and versions, a table in docs/benchmarks.md.

Under load they are printed and not recorded (benchmarks/load.py). `python -m benchmarks.figures` writes the tables again
from the files.
"""

import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.load import Watch

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TABLE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = "| figure | value | spread | load before, after | goal | |"


class Figures:
    """The figures of one benchmark, printed as they come and written at the end if the machine did nothing else."""

    def __init__(self, name: str, *libraries: str, watch: Watch | None = None) -> None:
        """Name the benchmark and the libraries whose versions stand beside its figures; the watch begins here.

        Build it before anything is measured.
        """
        self.name = name
        self.rows: list[dict[str, Any]] = []
        self._watch = watch or Watch()
        self._watch.start()
        self._machine = machine(*libraries)

    def add(self, name: str, value: float, unit: str, goal: str = "", rounds: Sequence[float] = ()) -> None:
        """Print and keep a figure.

        Args:
            name: what it is.
            value: the figure.
            unit: its unit, empty for none.
            goal: `<=X` or `>=X`, or nothing where there is none.
            rounds: the figure as each round gave it, from which its spread is taken; nothing where it was taken once.

        """
        met = (
            None if not goal else (value <= float(goal[2:]) if goal[:2] == "<=" else value >= float(goal[2:]))
        )
        verdict = {None: "", True: "met", False: "missed"}[met]
        row = {"name": name, "value": value, "unit": unit, "goal": goal, "met": met}
        row |= {"rounds": max(1, len(rounds)), "spread": spread(rounds)}
        row |= {"load before": self._watch.load_before, "load after": self._watch.load_now()}
        print(f"bench {name} {value:.4g} {unit} goal {goal or '-'} {verdict}".rstrip(), flush=True)
        self.rows.append(row)

    def add_rounds(self, name: str, rounds: Sequence[float], unit: str, goal: str = "") -> None:
        """Print and keep the median of what each round gave."""
        self.add(name, median(rounds), unit, goal, rounds)

    def write(self) -> bool:
        """Write benchmarks/results/<name>.json and the page's tables; return whether: figures under load are only printed."""
        self._watch.look(time.monotonic())
        objections = self._watch.objections()
        if objections:
            print(f"not recorded: {'; '.join(objections)}; the figures recorded before stay", flush=True)
            return False
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps({"machine": self._machine, "rows": self.rows}, indent=1) + "\n")
        write_tables()
        print(f"recorded: {path}", flush=True)
        return True


def machine(*libraries: str) -> dict[str, Any]:
    """Return the processor, how many there are, and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    found = {"cpus": os.cpu_count(), "cpu": next(named, "unknown"), "python": platform.python_version()}
    return found | {name: version(name) for name in libraries}


def write_tables() -> None:
    """Fill each table of the page, between its marks, from the file of that name."""
    PAGE.write_text(TABLE.sub(lambda found: found[1] + _table(found[2]) + found[3], PAGE.read_text()))


def _table(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "Not measured yet.\n"
    kept = json.loads(path.read_text())
    told = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    return "\n".join([f"On: {told}.", "", _HEAD, "|---|---|---|---|---|---|", *map(_line, kept["rows"]), ""])


def _line(row: dict[str, Any]) -> str:
    far = row.get("spread")
    told = "" if far is None else f"{far:.1%} of {row['rounds']} rounds"
    loads = f"{row['load before']:.2f}, {row['load after']:.2f}" if "load after" in row else ""
    return f"| {row['name']} | {row['value']:.4g} {row['unit']} | {told} | {loads} | {row['goal'] or ''} | {_verdict(row['met'])} |"


def _verdict(met: bool | None) -> str:
    return {None: "", True: "met", False: "missed"}[met]


def spread(rounds: Sequence[float]) -> float | None:
    """Return how far rounds are apart: largest less smallest over their median; None of fewer than two, or around zero."""
    middle = median(rounds) if len(rounds) > 1 else 0.0
    return (max(rounds) - min(rounds)) / abs(middle) if middle else None


def alternated(rounds: int, *timed: Callable[[], float]) -> list[list[float]]:
    """Call each in turn, some rounds; return what each gave, in order of rounds."""
    taken: list[list[float]] = [[] for _ in timed]
    for _ in range(rounds):
        for place, call in enumerate(timed):
            taken[place].append(call())
    return taken


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of two sides round by round."""
    return [one / other for one, other in zip(over, under, strict=True)]


if __name__ == "__main__":
    write_tables()
