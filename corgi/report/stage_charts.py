"""Charts of data that stages commit as JSON: the shift's figures, and the comparison's arms by sampler steps."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from corgi.report import charts

if TYPE_CHECKING:  # slow to import
    from corgi.evaluation.metrics import Measure, ScoreRow
    from corgi.shift.plots import CosineCounts, Curves

_COMPARED: "tuple[tuple[Measure, str], ...]" = (
    ("frechet", "Frechet distance"),
    ("two_sample_cosine", "two-sample cosine"),
    ("R@10", "R@10"),
)


def shift_charts(curves: "Curves") -> list[charts.Chart]:
    """Return the shift's figures: images per cluster, the spectrum, cosines."""
    drawn = [
        charts.line_chart(
            "Train images per cluster", _line(curves["images per cluster"]), "clusters, largest first"
        ),
        charts.line_chart(
            "Variance of the embeddings", _line(curves["variance by component"]), "by component"
        ),
        _cosines(curves["cosines"]),
    ]
    return [chart for chart in drawn if chart is not None]


def comparison_charts(scores: "Sequence[ScoreRow]") -> list[charts.Chart]:
    """Return one chart per space and measure: each arm at its best sampler by steps, mean and 95 % interval over seeds."""
    drawn: list[charts.Chart] = []
    for space in dict.fromkeys(row["space"] for row in scores):
        best = _best_samplers([row for row in scores if row["space"] == space])
        for measure, title in _COMPARED:
            lines = {
                arm: [(steps, *_mean_and_reach(rows, measure)) for steps, rows in by_steps.items()]
                for arm, by_steps in best.items()
            }
            chart = charts.steps_chart(f"{space}: {title}", lines, "by sampler steps")
            drawn += [chart] if chart is not None else []
    return drawn


def _line(values: Mapping[str, float]) -> dict[str, tuple[list[float], list[float]]]:
    return {"": ([float(name) for name in values], [float(value) for value in values.values()])}


def _cosines(groups: "Mapping[str, CosineCounts]") -> charts.Chart | None:
    """Return the histograms of cosines; the middle of each bin represents the values in it."""
    samples: dict[str, Sequence[float]] = {}
    for name, group in groups.items():
        edges = np.linspace(-1, 1, len(group["counts"]) + 1)
        if group["mean"] is not None and sum(group["counts"]):
            samples[f"{name}, mean {charts.number(group['mean'])}"] = np.repeat(
                (edges[:-1] + edges[1:]) / 2, group["counts"]
            ).tolist()
    return charts.histogram("Cosines", samples, "share of pairs")


def _best_samplers(rows: "Sequence[ScoreRow]") -> "dict[str, dict[int, list[ScoreRow]]]":
    """Return each arm's rows by steps, of the sampler with the smallest mean Frechet distance; different numbers of candidates are separate arms."""
    ways: dict[tuple[str, int], dict[str, list[ScoreRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        arm = row["arm"] if row["candidates"] == 1 else f"{row['arm']}, best of {row['candidates']}"
        ways[arm, row["steps"]][row["sampler"]].append(row)
    best: dict[str, dict[int, list[ScoreRow]]] = defaultdict(dict)
    for (arm, steps), samplers in ways.items():
        best[arm][steps] = min(samplers.values(), key=lambda rows: _mean_and_reach(rows, "frechet")[0])
    return best


def _mean_and_reach(rows: "Sequence[ScoreRow]", measure: "Measure") -> tuple[float, float]:
    """Return a measure's mean over seeds and half its 95 % interval, 0 with one seed."""
    from corgi.evaluation.metrics import student_interval  # scipy is slow to import

    values = np.array([row[measure] for row in rows], float)
    mean = float(values.mean())
    low = student_interval(values)[0] if len(values) > 1 else mean
    return mean, mean - low if math.isfinite(low) else 0.0
