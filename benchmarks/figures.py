"""Figures of a benchmark: one printed line each, a file of rows with machine and versions, a table in docs/benchmarks.md.

`python -m benchmarks.figures` writes the tables again from the files.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
_TABLE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Figures:
    """The figures of one benchmark, printed as they come and written at the end."""

    def __init__(self, name: str, *libraries: str) -> None:
        """Name the benchmark and the libraries whose versions stand beside its figures."""
        self.name = name
        self.rows: list[dict[str, Any]] = []
        self._machine = machine(*libraries)

    def add(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Print and keep a figure; a goal is `<=X` or `>=X`, or nothing where there is none."""
        met = (
            None if not goal else (value <= float(goal[2:]) if goal[:2] == "<=" else value >= float(goal[2:]))
        )
        verdict = {None: "", True: "met", False: "missed"}[met]
        print(f"bench {name} {value:.4g} {unit} goal {goal or '-'} {verdict}".rstrip(), flush=True)
        self.rows.append({"name": name, "value": value, "unit": unit, "goal": goal, "met": met})

    def write(self) -> None:
        """Write the rows to benchmarks/results/<name>.json and the tables of the page."""
        RESULTS.mkdir(exist_ok=True)
        kept = {"machine": self._machine, "rows": self.rows}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        write_tables()


def machine(*libraries: str) -> dict[str, Any]:
    """Return the processor, how many there are, how busy they were, and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    found = {"cpus": os.cpu_count(), "cpu": next(named, "unknown"), "python": platform.python_version()}
    found |= {name: version(name) for name in libraries}
    return found | {"load before": round(os.getloadavg()[0], 1)}


def write_tables() -> None:
    """Fill each table of the page, between its marks, from the file of that name."""
    PAGE.write_text(_TABLE.sub(lambda found: found[1] + _table(found[2]) + found[3], PAGE.read_text()))


def _table(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "Not measured yet.\n"
    kept = json.loads(path.read_text())
    told = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    lines = [
        f"| {row['name']} | {row['value']:.4g} {row['unit']} | {row['goal'] or ''} | {_verdict(row['met'])} |"
        for row in kept["rows"]
    ]
    return "\n".join([f"On: {told}.", "", "| figure | value | goal | |", "|---|---|---|---|", *lines, ""])


def _verdict(met: bool | None) -> str:
    return {None: "", True: "met", False: "missed"}[met]


def alternated(rounds: int, *timed: Callable[[], float]) -> list[float]:
    """Call each in turn, some rounds; return the median of what each gave."""
    taken: Sequence[list[float]] = [[] for _ in timed]
    for _ in range(rounds):
        for place, call in enumerate(timed):
            taken[place].append(call())
    return [median(values) for values in taken]


if __name__ == "__main__":
    write_tables()
