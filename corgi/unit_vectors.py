"""Rows scaled to unit norm, by one rule for every package that stores, reads or measures vectors."""

import numpy as np
from jaxtyping import Float


def unit_rows(rows: Float[np.ndarray, "... dim"]) -> Float[np.ndarray, "... dim"]:
    """Return rows divided by their norms, in the rows' own type, as `unit_and_norm` does."""
    return unit_and_norm(rows)[0]


def unit_and_norm(
    rows: Float[np.ndarray, "... dim"],
) -> tuple[Float[np.ndarray, "... dim"], Float[np.ndarray, "..."]]:
    """Return rows scaled to unit norm, and their original norms.

    A row of zeros stays zero. A row with a NaN or an infinity gets NaN values, which no table accepts.
    """
    with np.errstate(invalid="ignore"):
        norm = np.linalg.norm(rows, axis=-1)
        return rows / np.maximum(norm, np.finfo(rows.dtype).tiny)[..., None], norm
