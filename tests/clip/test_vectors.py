"""Vectors to columns and back, and the one unit vector of several towers."""

import numpy as np
import pyarrow as pa
import pytest

from corgi.clip.vectors import column, concatenated, is_good, matrix, tower_names


def table(**blocks: np.ndarray) -> pa.Table:
    return pa.table({f"{name}/image": column(rows) for name, rows in blocks.items()})


@pytest.mark.law
def test_each_tower_weighs_the_same_and_the_whole_is_unit() -> None:
    generator = np.random.default_rng(0)
    rows = table(a=generator.normal(size=(5, 4)), b=9 * generator.normal(size=(5, 12)))
    joined = concatenated(rows, "image", ["a", "b"])
    assert joined.dtype == np.float32
    assert joined.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(joined[:, :4], axis=1), 0.5**0.5, atol=1e-6)


def test_a_column_comes_back_also_in_pieces() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(6, 4)
    whole = table(a=rows)
    np.testing.assert_array_equal(matrix(whole["a/image"]), rows)
    np.testing.assert_array_equal(matrix(whole.slice(2, 3)["a/image"]), rows[2:5])
    np.testing.assert_array_equal(matrix(pa.concat_tables([whole, whole])["a/image"])[6:], rows)
    assert matrix(whole.slice(0, 0)["a/image"]).shape == (0, 4)
    assert list(tower_names(whole.schema)) == ["a"]


def test_nan_infinite_and_zero_rows_are_not_good() -> None:
    rows = np.array([[1, 0], [np.nan, 0], [0, 0], [1, 0]], np.float32)
    assert is_good(rows, np.array([1, np.nan, 0, np.inf], np.float32)).tolist() == [True, False, False, False]
