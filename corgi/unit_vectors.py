"""Rows at unit norm, by one rule for every package that stores, reads or measures vectors."""

import numpy as np
from jaxtyping import Float


def unit_rows(rows: Float[np.ndarray, "... dim"]) -> Float[np.ndarray, "... dim"]:
    """Return rows divided by their norms, in the rows' own type; the rule is that of `unit_and_norm`."""
    return unit_and_norm(rows)[0]


def unit_and_norm(
    rows: Float[np.ndarray, "... dim"],
) -> tuple[Float[np.ndarray, "... dim"], Float[np.ndarray, "..."]]:
    """Return rows at unit norm and the norms they had.

    A row of zeros stays zero. A row with a NaN or an infinity becomes NaN where it matters, which no table accepts.
    """
    with np.errstate(invalid="ignore"):
        norm = np.linalg.norm(rows, axis=-1)
        return rows / np.maximum(norm, np.finfo(rows.dtype).tiny)[..., None], norm
