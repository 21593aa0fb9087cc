"""The comparison as plots: Frechet distance, two-sample cosine and R@10 by sampler steps, one line per arm."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corgi.evaluation.metrics import student_interval

DPI = 110
PANELS = (("frechet", "Frechet distance"), ("two_sample_cosine", "two-sample cosine"), ("R@10", "R@10"))
Lines = Mapping[str, Sequence[tuple[int, Mapping[str, np.ndarray]]]]


def plot_space(space: str, lines: Lines, truth: Mapping[str, float]) -> bytes:
    """Return PNG bytes: each arm at its best sampler, with 95 % intervals over seeds as bars and the score of the true data as a dashed line."""
    figure = Figure(figsize=(15, 5.4), dpi=DPI, layout="constrained")
    figure.suptitle(f"Priors in the space {space}: each at its best sampler for these steps")
    colours = mpl.colormaps["tab20"](np.linspace(0, 1, max(20, len(lines))))
    for axes, (measure, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _panel(axes, measure, lines, colours)
        axes.set_ylabel(title)
        if measure in truth:
            axes.axhline(truth[measure], color="black", linestyle="--", linewidth=1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)
    body = io.BytesIO()
    figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def _panel(axes: Axes, measure: str, lines: Lines, colours: np.ndarray) -> None:
    for number, (label, points) in enumerate(lines.items()):
        steps = [step for step, _ in points]
        values = [measures[measure] for _, measures in points]
        mean = np.array([v.mean() for v in values])
        half = [0.0 if len(v) < 2 else v.mean() - student_interval(v)[0] for v in values]
        marker = "s" if len(points) == 1 else "o"
        axes.errorbar(
            steps, mean, half, label=label, color=colours[number], marker=marker, markersize=3, linewidth=1.1
        )
    ticks = sorted({step for points in lines.values() for step, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(step) for step in ticks])
    axes.set_xlabel("sampler steps")
    axes.grid(alpha=0.25)
