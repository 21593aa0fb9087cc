"""Whether painted pictures are nearer to training pictures than to the truth: similarity alone rewards copying."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Rows = Shaped[np.ndarray, "rows values"]
Closeness = Callable[[Rows, Rows], Float[np.ndarray, "rows others"]]
"""(rows, others) -> how close each row is to each other, larger is closer."""
CHUNK = 256
"""Training pictures compared at once."""
SLACK = 1e-5
"""Differences of closeness below it are rounding: an equally near training picture is no copy."""


def cosine(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return the cosines of unit vectors."""
    return a.astype(np.float64) @ b.T.astype(np.float64)


def pixel_closeness(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return minus the mean squared difference of pictures given as bytes, of values 0..1."""
    return square_closeness(a, b) / 255**2


def square_closeness(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return minus the mean squared difference of rows of numbers."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return -square / a.shape[1]


def nearest(
    rows: Rows, training: Rows, closeness: Closeness
) -> tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows"]]:
    """Return the closest training row of each row, and how close it is."""
    at, best = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf)
    for first in range(0, len(training), CHUNK):
        found = closeness(rows, training[first : first + CHUNK])
        here = found.argmax(1)
        value = found[np.arange(len(rows)), here]
        at, best = np.where(value > best, here + first, at), np.maximum(value, best)
    return at, best


def is_nearer_to_training(
    painted: Rows, truth: Rows, training: Rows, closeness: Closeness
) -> Bool[np.ndarray, "rows"]:
    """Return which painted pictures are nearer to some training picture than to their own truth."""
    return nearest(painted, training, closeness)[1] > _to_own(painted, truth, closeness) + SLACK


def is_nearer_to(painted: Rows, truth: Rows, other: Rows, closeness: Closeness) -> Bool[np.ndarray, "rows"]:
    """Return which painted pictures are nearer to a given picture each than to their own truth."""
    return _to_own(painted, other, closeness) > _to_own(painted, truth, closeness) + SLACK


def _to_own(rows: Rows, others: Rows, closeness: Closeness) -> Float[np.ndarray, "rows"]:
    """Return how close each row is to the other of its place."""
    pairs = [closeness(rows[at : at + 1], others[at : at + 1])[0, 0] for at in range(len(rows))]
    return np.array(pairs)
