"""Vectors of several towers: into table columns, and out of them as one unit vector."""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from corgi.tables.vectors import concatenated, matrix, tower_names

__all__ = ["NORMALISATION", "column", "concatenated", "is_good", "matrix", "tower_names"]

NORMALISATION = "each tower's block to unit norm, the whole to unit norm"


def column(vectors: Float[np.ndarray, "n dim"]) -> pa.FixedSizeListArray:
    """Return a matrix as a column of half floats."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def is_good(vectors: Float[np.ndarray, "n dim"], norm: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Return which rows can be stored: finite and of positive finite norm."""
    return np.isfinite(vectors).all(axis=1) & np.isfinite(norm) & (norm > 0)
