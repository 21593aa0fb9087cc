"""Measures of a prior and a decoder in CLIP space; none should be quoted alone, since cosine rewards collapse."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypedDict, get_args

import numpy as np
from jaxtyping import Float
from scipy import stats

from corgi.statistics.frechet import frechet_distance as frechet_distance
from corgi.statistics.retrieval import recall
from corgi.unit_vectors import unit_rows

Vectors = Float[np.ndarray, "rows dim"]
Measure = Literal["frechet", "mmd", "two_sample_cosine", "cosine", "R@1", "R@10"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
"""The measures of an arm of the comparison."""
Scores = TypedDict(
    "Scores",
    {
        "sampler": str,
        "steps": int,
        "candidates": int,
        "cosine": float,
        "R@1": float,
        "R@10": float,
        "two_sample_cosine": float,
        "frechet": float,
        "mmd": float,
    },
)
"""How a prior was sampled, and every measure of its samples."""


class ScoreRow(Scores):
    """A row of the comparison's scores.json: the scores of one arm, trained in one space with one seed."""

    space: str
    arm: str
    seed: int


def paired_cosine(a: Vectors, b: Vectors) -> float:
    """Return the mean cosine of matching rows of unit vectors."""
    return float((a * b).sum(1).mean())


def squared_mmd(a: Vectors, b: Vectors) -> float:
    """Return the unbiased squared maximum mean discrepancy of two sets, Gaussian kernel, float64 (Gretton et al. 2012, eq. 3).

    The kernel's width is the root mean squared distance of two rows of `b`: pass the true data as `b`, so that all methods are
    judged by the same kernel. It is about 0 for equal distributions, and may be negative by chance.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    width = 2 * b.var(axis=0).sum()

    def kernel(x: Vectors, y: Vectors) -> Float[np.ndarray, "n m"]:
        square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        return np.exp(-square / (2 * width))

    n, m = len(a), len(b)
    own = (kernel(a, a).sum() - n) / (n * (n - 1)) + (kernel(b, b).sum() - m) / (m * (m - 1))
    return float(own - 2 * kernel(a, b).mean())


def student_interval(values: Float[np.ndarray, "seeds"]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; infinitely wide for one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return mean - half, mean + half


def retrieval(queries: Vectors, targets: Vectors, ranks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return `recall` under the names of metrics.json: `R@k`."""
    return {f"R@{k}": share for k, share in recall(queries, targets, ranks).items()}


def interval(values: Float[np.ndarray, "rows"], seed: int = 0, num_draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean (percentile method)."""
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(values), (num_draws, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def softmax_average(text: Vectors, train_text: Vectors, train_image: Vectors, temperature: float) -> Vectors:
    """Return unit averages of train images weighted by softmax(cos(text, train text) / temperature); needs no training."""
    logits = text @ train_text.T / temperature
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return unit_rows((weights / weights.sum(1, keepdims=True)) @ train_image)


def own_similarity(seen: Vectors, true: Vectors) -> dict[str, object]:
    """Return CLIP similarity to the true picture, to another picture (the shuffled control), and their paired difference."""
    own, other = (seen * true).sum(1), (seen * np.roll(true, len(true) // 2, axis=0)).sum(1)
    values: dict[str, Float[np.ndarray, "rows"]] = {
        "similarity": own,
        "shuffled control": other,
        "difference": own - other,
    }
    intervals: dict[str, object] = {
        name: {"mean": float(value.mean()), "low 95%": interval(value)[0], "high 95%": interval(value)[1]}
        for name, value in values.items()
    }
    return {**intervals, "retrieval": retrieval(seen, true)}


def figures(values: Mapping[str, object], path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of nested measures with its path, such as "copying/HELD-OUT/pixels/from prior/..."."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{path}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{name}", float(value)
