"""Charts of the shift's curves and of the comparison's scores."""

import numpy as np

from corgi.evaluation.metrics import ScoreRow
from corgi.report import stage_charts
from corgi.shift.plots import Curves
from corgi.shift.stage import COSINE_BINS


def score(arm: str, sampler: str, steps: int, seed: int, frechet: float) -> ScoreRow:
    return {
        "space": "own",
        "arm": arm,
        "seed": seed,
        "sampler": sampler,
        "steps": steps,
        "candidates": 1,
        "cosine": 0.5,
        "R@1": 0.5,
        "R@10": 0.5,
        "two_sample_cosine": 0.5,
        "frechet": frechet,
        "mmd": 0.5,
    }


def test_the_shifts_figures_are_drawn_from_its_curves():
    counts = np.histogram(np.array([0.1, 0.2, 0.2]), COSINE_BINS, (-1, 1))[0].tolist()
    empty = [0] * COSINE_BINS
    curves: Curves = {
        "images per cluster": {"0": 9, "1": 4, "2": 1},
        "variance by component": {"1": 0.5, "2": 0.25, "4": 0.001},
        "cosines": {
            "image, caption": {"mean": 0.17, "counts": counts},
            "none": {"mean": None, "counts": empty},
        },
    }
    drawn = stage_charts.shift_charts(curves)
    assert [chart.title for chart in drawn] == [
        "Train images per cluster",
        "Variance of the embeddings, logarithmic",
        "Cosines",
    ]
    assert [series.name for series in drawn[2].series] == ["image, caption, mean 0.170"]


def test_law_an_arm_is_drawn_at_its_best_sampler_with_the_interval_over_seeds():
    scores = [
        score("shifted", sampler, 4, seed, frechet + seed)
        for sampler, frechet in (("bad", 9.0), ("good", 1.0))
        for seed in range(3)
    ]
    scores += [score("dalle2", "bad", 64, 0, 2.0)]
    first, *others = stage_charts.comparison_charts(scores)
    assert first.title == "own: Frechet distance"
    assert len(others) == 2
    assert [tick.label for tick in first.x_ticks] == ["4", "64"]
    shifted, dalle2 = first.series
    y = {series.name: float(series.points.split(",")[1]) for series in first.series}
    assert y["shifted"] == y["dalle2"]  # mean 2 of the good sampler
    upper, lower = shifted.whiskers.split(",")[1].split("V")
    assert float(upper) < y["shifted"] < float(lower)
    upper, lower = dalle2.whiskers.split(",")[1].split("V")
    assert upper == lower  # one seed
