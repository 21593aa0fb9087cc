"""Vectors of several towers are one unit vector, whose cosine is the mean of theirs."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.settings.errors import InputError
from corgi.tables.schema import caption_embeddings, image_embeddings, vector
from corgi.tables.vectors import concatenated, matrix, tower_names

DIMS = st.dictionaries(
    st.sampled_from(["own", "b32", "a/b", "l14"]), st.integers(1, 6), min_size=1, max_size=3
)


def rows(num: int, dim: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float16)


def column(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def table(dims: dict[str, int], num: int) -> pa.Table:
    columns = {f"{tower}/image": column(rows(num, dim, at)) for at, (tower, dim) in enumerate(dims.items())}
    return pa.table(columns)


@given(DIMS)
def test_law_the_towers_of_a_schema_are_those_it_was_made_of(dims: dict[str, int]) -> None:
    assert tower_names(image_embeddings(dims, ["beauty"])) == list(dims)
    assert tower_names(caption_embeddings(dims)) == list(dims)


def test_a_table_without_towers_is_one_line() -> None:
    with pytest.raises(InputError, match="has no tower"):
        tower_names(image_embeddings({}))


@given(st.integers(0, 7), st.integers(1, 5), st.lists(st.integers(0, 7), max_size=3))
def test_law_a_matrix_does_not_depend_on_chunks(num: int, dim: int, cuts: list[int]) -> None:
    values = rows(num, dim, 0)
    ends = sorted({0, num, *(min(cut, num) for cut in cuts)})
    chunks = [column(values[a:b]) for a, b in pairwise(ends)]
    found = matrix(pa.chunked_array(chunks, vector(dim)))
    assert (found.dtype, found.shape) == (np.float32, (num, dim))
    np.testing.assert_array_equal(found, values.astype(np.float32))


@given(DIMS, st.integers(1, 5))
def test_law_a_cosine_over_towers_is_the_mean_of_the_towers_cosines(dims: dict[str, int], num: int) -> None:
    held = table(dims, num)
    whole = concatenated(held, "image", list(dims))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    alone = [concatenated(held, "image", [tower]) for tower in dims]
    np.testing.assert_allclose(whole @ whole.T, np.mean([part @ part.T for part in alone], axis=0), atol=1e-5)
