"""Vectors of several towers: written to table columns, and read from them as one unit vector."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from corgi.tables.vectors import concatenated, matrix, tower_names

__all__ = ["NORMALISATION", "Vectors", "column", "concatenated", "is_good", "matrix", "tower_names"]

NORMALISATION = "each tower's block to unit norm, the whole to unit norm"


def column(vectors: Float[np.ndarray, "n dim"]) -> pa.FixedSizeListArray:
    """Return a matrix as a column of half floats."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def is_good(vectors: Float[np.ndarray, "n dim"], norm: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which rows can be stored: finite and of positive finite norm."""
    return np.isfinite(vectors).all(axis=1) & np.isfinite(norm) & (norm > 0)


@dataclass(frozen=True)
class Vectors:
    """The unit vectors of some rows, by tower, with their original norms."""

    unit: dict[str, Float[np.ndarray, "n dim"]]
    norm: dict[str, Float[np.ndarray, "n"]]

    def is_good(self) -> Bool[np.ndarray, "n"]:
        """Return the rows for which every tower gave a finite, non-zero vector."""
        return np.logical_and.reduce([is_good(self.unit[tower], self.norm[tower]) for tower in self.unit])

    def columns(self, kind: str, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the table columns of the chosen rows."""
        found: dict[str, pa.Array] = {}
        for tower, unit in self.unit.items():
            found[f"{tower}/{kind}"] = column(unit[rows])
            found[f"{tower}/{kind}_norm"] = pa.array(self.norm[tower][rows], pa.float32())
        return found

    @property
    def dims(self) -> dict[str, int]:
        """Return each tower's width."""
        return {tower: unit.shape[1] for tower, unit in self.unit.items()}
