"""Whether painted pictures are copies of training pictures, by a threshold that held-out pictures set.

A painted picture always has a nearest training picture. It is called a copy if it is much nearer to that training picture than the
training picture's own neighbours are, and by this measure nearer than almost all held-out pictures of the same data.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from corgi.evaluation.copying import CHUNK, Rows, nearest, square_closeness

EXPECTED_SHARE = 0.02
"""Share of held-out pictures that are below the threshold."""
NEIGHBOUR = 10
"""Which neighbour of a training picture measures how far apart pictures of its kind are. It is beyond a picture's near duplicates in the
data, if these are fewer: the very nearest neighbour may be one, as near as a copy."""
MAX_WITHIN = 2000
"""Maximum number of training pictures that are compared with the others; the time grows with this number times that of all training pictures."""


@dataclass(frozen=True)
class Space:
    """Rows of painted, training and held-out pictures. They are compared by their root mean squared difference.

    For unit vectors that is sqrt((2 - 2 cosine) / dim), and for bits as -1 and 1 it is twice the root of the share that differs.
    """

    painted: Rows
    training: Rows
    held_out: Rows

    @classmethod
    def of(cls, sets: Iterable[Rows]) -> "Space":
        """Return the space of painted, training and held-out rows, in this order."""
        return cls(*sets)


@dataclass(frozen=True)
class Threshold:
    """The relative distance below which a picture is called a copy, and the shares of real pictures below it."""

    value: float
    held_out_share: float
    """Share of held-out pictures below the threshold: what painting without copying would give."""
    training_share: float
    """Share of training pictures that are this near to another training picture: near duplicates within the data."""

    @property
    def facts(self) -> dict[str, float]:
        """Return the threshold and the shares of real pictures below it, as JSON."""
        return {
            "near among held-out pictures": self.held_out_share,
            "near among training pictures": self.training_share,
            "threshold": self.value,
        }


@dataclass(frozen=True)
class Copies:
    """The nearest training picture of each painted one, as a row, and its relative distance; below the threshold it is a copy."""

    nearest: Int[np.ndarray, "rows"]
    distance: Float[np.ndarray, "rows"]
    threshold: Threshold

    @property
    def is_copy(self) -> Bool[np.ndarray, "rows"]:
        """Return which painted pictures are copies."""
        return self.distance < self.threshold.value

    @property
    def share(self) -> dict[str, float]:
        """Return the share of copies with its 95 % interval (Wilson 1927)."""
        low, high = share_interval(int(self.is_copy.sum()), len(self.is_copy))
        return {"copies": float(self.is_copy.mean()), "copies, low 95%": low, "copies, high 95%": high}

    def part(self, rows: slice) -> "Copies":
        """Return the same for some of the painted pictures."""
        return Copies(self.nearest[rows], self.distance[rows], self.threshold)


def find_copies(space: Space, expected_share: float = EXPECTED_SHARE) -> Copies:
    """Find the painted pictures that are copies.

    ValueError if no picture is held out, or there are fewer than two training pictures.
    """
    threshold = calibrated(space, expected_share)
    return Copies(*relative_distance(space.painted, space.training), threshold)


def calibrated(space: Space, expected_share: float = EXPECTED_SHARE) -> Threshold:
    """Return the threshold: the relative distance below which at most `expected_share` of the held-out pictures are."""
    if len(space.held_out) == 0 or len(space.training) < 2:
        raise ValueError("finding copies needs held-out pictures and at least two training pictures")
    held_out = relative_distance(space.held_out, space.training)[1]
    value = float(np.quantile(held_out, expected_share, method="lower"))
    to_others = distances_to_others(space.training, np.arange(min(len(space.training), MAX_WITHIN)))
    within = _ratio(to_others[:, 0], to_others[:, -1])
    return Threshold(value, float((held_out < value).mean()), float((within < value).mean()))


def relative_distance(
    rows: Rows, training: Rows
) -> tuple[Int[np.ndarray, "rows"], Float[np.ndarray, "rows"]]:
    """Return the nearest training row t of each row p, and r(p) = d(p, t) / d(t, the NEIGHBOUR-th nearest other training row of t).

    Where all pictures are alike (flags, faces, plain backgrounds), d(p, t) is small for every p, and so is the denominator.
    """
    at, closeness = nearest(rows, training, square_closeness)
    distinct, index = np.unique(at, return_inverse=True)
    apart = distances_to_others(training, distinct)[:, -1]
    return at, _ratio(np.sqrt(np.maximum(-closeness, 0)), apart[index])


def distances_to_others(
    training: Rows, asked: Int[np.ndarray, "asked"], number: int = NEIGHBOUR
) -> Float[np.ndarray, "asked neighbours"]:
    """Return the distances of some training rows to their `number` nearest other ones, or to all if there are fewer, nearest first."""
    best = np.empty((len(asked), 0))
    for first in range(0, len(training), CHUNK):
        square = -square_closeness(training[asked], training[first : first + CHUNK])
        own = np.flatnonzero((asked >= first) & (asked < first + CHUNK))
        square[own, asked[own] - first] = np.inf
        best = np.sort(np.concatenate([best, square], axis=1), axis=1)[:, :number]
    return np.sqrt(np.maximum(best[:, : len(training) - 1], 0))


def _ratio(
    distance: Float[np.ndarray, "rows"], apart: Float[np.ndarray, "rows"]
) -> Float[np.ndarray, "rows"]:
    """Return distance / apart. If all neighbours are the same picture, only that picture itself is near: 0 / 0 is 0, and other quotients are infinite."""
    far = np.where(distance > 0, np.inf, 0.0)
    return np.divide(distance, apart, out=far, where=apart > 0)


def share_interval(number: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    bounds = stats.binomtest(number, total).proportion_ci(0.95, "wilson")
    return float(bounds.low), float(bounds.high)
