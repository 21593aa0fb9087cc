"""Rows at unit norm: the law, and that every package that makes unit rows keeps it."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from jaxtyping import Float

from corgi.clip.vectors import column
from corgi.sources.embeddings import unit_vectors
from corgi.statistics.clusters import spherical_kmeans
from corgi.tables.vectors import concatenated
from corgi.unit_vectors import unit_and_norm, unit_rows

Rows = Float[np.ndarray, "n dim"]


def test_law_rows_of_any_length_become_unit_and_zero_stays_zero() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    lengths = np.array([1e-15, 1e-12, 1, 1e3, 1e15, 0], np.float32)
    found, norm = unit_and_norm(rows * lengths[:, None])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(norm, np.linalg.norm(rows * lengths[:, None], axis=1))
    assert found.dtype == np.float32
    assert np.isnan(unit_rows(np.array([[np.nan, 1.0]]))).all()
    assert not np.isfinite(unit_rows(np.array([[np.inf, 1.0]]))).all()


def stored(rows: Rows) -> Rows:
    """Return the rows read back from an embeddings table."""
    return concatenated(pa.table({"a/image": column(rows)}), "image", ["a"])


def only_centroid(rows: Rows) -> Rows:
    """Return each row as the only cluster's centroid of itself."""
    return np.concatenate([spherical_kmeans(row[None], 1) for row in rows])


@pytest.mark.parametrize("made", [stored, only_centroid, lambda rows: unit_vectors(rows)[0]])
@pytest.mark.parametrize("length", [1.0, 1e-3])
def test_short_rows_are_unit_rows_wherever_they_are_made(made: Callable[[Rows], Rows], length: float) -> None:
    rows = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32) * np.float32(length)
    np.testing.assert_allclose(np.linalg.norm(made(rows), axis=1), 1, rtol=1e-4)
