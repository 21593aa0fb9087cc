"""Membership in a column is Python's."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corgi.tables.arrow import is_in

NAMES = st.sampled_from(["a", "b", "ab", "", "é", "A"])


@given(st.lists(st.lists(NAMES), max_size=3), st.sets(NAMES))
def test_law_is_in_is_pythons_in(chunks: list[list[str]], names: set[str]) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())
    assert is_in(column, names).to_pylist() == [value in names for value in column.to_pylist()]
