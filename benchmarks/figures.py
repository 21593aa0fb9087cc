"""Figures of a benchmark: one printed line each, and a file of rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


class Figures:
    """The figures of one benchmark, printed as they come and written at the end."""

    def __init__(self, name: str) -> None:
        """Name the benchmark."""
        self.name = name
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Print and keep a figure; a goal is `<=X` or `>=X`, or nothing where there is none."""
        met = (
            None if not goal else (value <= float(goal[2:]) if goal[:2] == "<=" else value >= float(goal[2:]))
        )
        verdict = {None: "", True: "met", False: "missed"}[met]
        print(f"bench {name} {value:.4g} {unit} goal {goal or '-'} {verdict}".rstrip(), flush=True)
        self.rows.append({"name": name, "value": value, "unit": unit, "goal": goal, "met": met})

    def write(self) -> None:
        """Write the rows to benchmarks/results/<name>.json."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.json").write_text(json.dumps(self.rows, indent=1) + "\n")


def alternated(rounds: int, *timed: Callable[[], float]) -> list[float]:
    """Call each in turn, some rounds; return the median of what each gave."""
    taken: Sequence[list[float]] = [[] for _ in timed]
    for _ in range(rounds):
        for place, call in enumerate(timed):
            taken[place].append(call())
    return [median(values) for values in taken]
