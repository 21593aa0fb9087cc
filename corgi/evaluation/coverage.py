"""Precision, recall, density and coverage of painted features against real ones."""

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "rows dim"]
NEAREST = 5
"""The k whose k-th neighbour sets the radius of a row's ball."""


def prdc(real: Rows, painted: Rows, nearest: int = NEAREST) -> dict[str, float]:
    """Return the four measures, based on balls that reach to each row's k-th neighbour in its own set.

    precision: painted rows inside some real ball; recall: real rows inside some painted ball (Kynkaanniemi et al. 2019).
    density: mean number of real balls that contain a painted row, divided by k; coverage: share of real balls that contain a painted row
    (Naeem et al. 2020). ValueError if a set has no more than k rows.
    """
    if min(len(real), len(painted)) <= nearest:
        raise ValueError(
            f"{nearest} neighbours need more rows than {len(real)} real and {len(painted)} painted ones"
        )
    between = distances(real, painted)
    real_reach, painted_reach = (_reach(distances(rows, rows), nearest) for rows in (real, painted))
    inside = between < real_reach[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between < painted_reach[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / nearest),
        "coverage": float((between.min(1) < real_reach).mean()),
    }


def distances(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return the Euclidean distances of all pairs, float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(square.clip(0))


def _reach(own: Float[np.ndarray, "rows rows"], nearest: int) -> Float[np.ndarray, "rows"]:
    """Return each row's distance to its k-th neighbour; the row itself is the 0th."""
    return np.partition(own, nearest, axis=1)[:, nearest]
