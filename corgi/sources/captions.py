"""Captions of a raw value: one rule for every source, whether it is a list, a tar, a folder or a table."""

import numpy as np
import pyarrow as pa

from corgi.settings.errors import InputError
from corgi.sources.cells import is_text, text_of
from corgi.tables.arrow import pc

CAPTIONS = pa.list_(pa.string())


def captions_of(values: pa.Array, column: str, uri: str) -> pa.Array:
    """Return the captions of every value of a column, as one list of text per value.

    A text is one caption; so is a number or a boolean, as it is written. A list of texts is several captions.
    Null, NaN and the infinities are no captions, also inside a list. The words `nan` and `None` are captions if the file has them as text.

    Args:
        values: a column as it was read; a column of JSON as `cells.column_of` returns it.
        column: its name, for the error.
        uri: path or URI of the source, for the error.

    Raises:
        InputError: the column is of another type, such as objects, dates or lists of numbers, or is not UTF-8.

    """
    lists = _lists(values)
    if not _may_be_captions(values.type):
        raise InputError(
            f"{uri} cannot be read as a list: column {column!r} has type {values.type}, not captions; nothing was started; "
            "name a column of texts or of lists of texts in plan.caption_col, or null"
        )
    texts = text_of(pc.list_flatten(lists), column, uri)
    is_there = texts.is_valid()
    parents = pc.list_parent_indices(lists).filter(is_there).to_numpy(zero_copy_only=False)
    counts = np.bincount(parents, minlength=len(values))
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pa.ListArray.from_arrays(offsets, texts.filter(is_there), type=CAPTIONS)


def _may_be_captions(kind: pa.DataType) -> bool:
    if _is_list(kind):
        return is_text(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _may_be_captions(kind.value_type)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return is_text(kind) or is_number or pa.types.is_boolean(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _lists(values: pa.Array) -> pa.Array:
    """Return the values as lists; values that are not lists become lists of one."""
    if _is_list(values.type):
        return values
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(values) + 1)), values)
