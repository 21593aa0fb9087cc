"""Whether painted pictures are copies of training pictures, by thresholds that held-out pictures calibrate.

A painted picture always has a nearest training picture. It is called a copy where it is nearer to it than almost any held-out
picture of the same data is, in most of several spaces.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from scipy import stats

from corgi.evaluation.copying import CHUNK, Closeness, Rows, nearest
from corgi.imaging.decode import phash_of

EXPECTED_SHARE = 0.01
"""Share of held-out pictures above a space's threshold."""
MAX_WITHIN = 2000
"""Training pictures that are compared with the other training pictures, at most: it takes time by its square."""


@dataclass(frozen=True)
class Space:
    """Rows of the three sets in one space, and how close two rows are: larger is closer."""

    painted: Rows
    training: Rows
    held_out: Rows
    closeness: Closeness

    @classmethod
    def of(cls, sets: Iterable[Rows], closeness: Closeness) -> "Space":
        """Return the space of painted, training and held-out rows, in this order."""
        painted, training, held_out = sets
        return cls(painted, training, held_out, closeness)


@dataclass(frozen=True)
class Threshold:
    """The closeness beyond which a picture is called near, and what it means among real pictures."""

    value: float
    held_out_share: float
    """Held-out pictures with a nearer training picture: what painting without copying would give."""
    training_share: float
    """Training pictures with a nearer other training picture: near duplicates within the data."""

    @property
    def facts(self) -> dict[str, float]:
        """Return the threshold and the shares of real pictures beyond it, as JSON."""
        return {
            "near among held-out pictures": self.held_out_share,
            "near among training pictures": self.training_share,
            "threshold": self.value,
        }


@dataclass(frozen=True)
class Copies:
    """Which painted pictures are copies, of what, and in which spaces they are near."""

    is_copy: Bool[np.ndarray, "rows"]
    nearest: dict[str, Int[np.ndarray, "rows"]]
    is_near: dict[str, Bool[np.ndarray, "rows"]]
    thresholds: dict[str, Threshold]

    @property
    def share(self) -> dict[str, float]:
        """Return the share of copies with its 95 % interval (Wilson 1927)."""
        low, high = share_interval(int(self.is_copy.sum()), len(self.is_copy))
        return {"copies": float(self.is_copy.mean()), "copies, low 95%": low, "copies, high 95%": high}

    @property
    def facts(self) -> dict[str, object]:
        """Return the share of copies, and each space's shares, as JSON."""
        spaces = {
            name: {"near": float(self.is_near[name].mean()), **threshold.facts}
            for name, threshold in self.thresholds.items()
        }
        return {**self.share, "spaces": spaces}

    def part(self, rows: slice) -> "Copies":
        """Return what is known of some of the painted pictures."""
        nearest = {name: found[rows] for name, found in self.nearest.items()}
        is_near = {name: found[rows] for name, found in self.is_near.items()}
        return Copies(self.is_copy[rows], nearest, is_near, self.thresholds)


def find_copies(spaces: Mapping[str, Space], expected_share: float = EXPECTED_SHARE) -> Copies:
    """Return the painted pictures that are near to the same kind of picture in more than half of the spaces.

    ValueError when no picture is held out, or there are fewer than two training pictures.
    """
    found, near, thresholds = {}, {}, {}
    for name, space in spaces.items():
        thresholds[name] = calibrated(space, expected_share)
        found[name], closeness = nearest(space.painted, space.training, space.closeness)
        near[name] = closeness > thresholds[name].value
    votes = np.sum(list(near.values()), axis=0)
    return Copies(votes * 2 > len(spaces), found, near, thresholds)


def calibrated(space: Space, expected_share: float = EXPECTED_SHARE) -> Threshold:
    """Return the closeness that at most a share of the held-out pictures exceeds."""
    if len(space.held_out) == 0 or len(space.training) < 2:
        raise ValueError("copies are told by held-out pictures and at least two training pictures")
    held_out = nearest(space.held_out, space.training, space.closeness)[1]
    value = float(np.quantile(held_out, 1 - expected_share, method="higher"))
    within = nearest_other(space.training, space.closeness, MAX_WITHIN)
    return Threshold(value, float((held_out > value).mean()), float((within > value).mean()))


def nearest_other(rows: Rows, closeness: Closeness, limit: int | None = None) -> Float[np.ndarray, "asked"]:
    """Return how close each row, or each of the first `limit`, is to the closest other row of the whole set."""
    asked = rows[:limit]
    best = np.full(len(asked), -np.inf)
    for first in range(0, len(rows), CHUNK):
        found = closeness(asked, rows[first : first + CHUNK])
        own = np.arange(first, max(first, min(first + CHUNK, len(asked))))
        found[own, own - first] = -np.inf
        best = np.maximum(best, found.max(1))
    return best


def hash_rows(pictures: Sequence[Image.Image]) -> Rows:
    """Return the 64 bits of the perceptual hash of each picture's middle square, as -1 and 1: a decoder learns and paints squares."""
    codes = [
        int(phash_of(middle_square(picture.convert("RGB"))), 16).to_bytes(8, "big") for picture in pictures
    ]
    bits = np.unpackbits(np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), 8), axis=1)
    return bits.astype(np.float64) * 2 - 1


def middle_square(picture: Image.Image) -> Image.Image:
    """Return the largest square in the middle of a picture."""
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def hash_closeness(a: Rows, b: Rows) -> Float[np.ndarray, "rows others"]:
    """Return minus the number of bits that differ."""
    return (a @ b.T - a.shape[1]) / 2


def share_interval(number: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    found = stats.binomtest(number, total).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)
