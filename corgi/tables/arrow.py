"""Arrow's compute functions under one name; they are created at import, so type checkers do not know them."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownParameterType=false
# pyarrow has no types

from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute


def is_in(column: pa.ChunkedArray, names: set[str] | frozenset[str]) -> pa.ChunkedArray:
    """Return, value by value, whether a value of a text column is one of `names`."""
    return pc.is_in(column, value_set=pa.array(sorted(names), pa.string()))
