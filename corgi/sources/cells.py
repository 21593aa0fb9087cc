"""Cells as text: columns of any type that can be written as text, and JSON values, whose numbers keep their spelling."""

import json
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from corgi.settings.errors import InputError
from corgi.tables.arrow import pc


class Spelling(str):
    """A JSON number as it is written, such as 1e5; a JSON string is not a Spelling."""

    __slots__ = ()


class Doubled:
    """Replaces the values of a name that a JSON object has more than once."""


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column's type is text, or bytes that may be text, or only null."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return is_string or is_bytes or pa.types.is_null(kind)


def text_of(array: pa.Array, column: str, uri: str) -> pa.Array:
    """Return a column as text, checked to be UTF-8; NaN and the infinities become null, like a missing cell.

    Raises:
        InputError: its type cannot be written as text, or it is not UTF-8.

    """
    try:
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if pa.types.is_floating(array.type):
            array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
        text = array.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowException as error:
        raise InputError(
            f"{uri} cannot be read as a list: column {column!r}: {str(error).splitlines()[0]}; nothing was started; "
            "store it as UTF-8 text"
        ) from error
    return text


def parsed(text: str | bytes) -> object:
    """Return a JSON value: numbers as they are written, NaN and the infinities as None, values of a repeated name as Doubled.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.

    """
    # numbers are not converted: a number of a thousand digits costs no time, and 1e5 keeps its spelling
    return json.loads(
        text,
        parse_int=Spelling,
        parse_float=Spelling,
        parse_constant=lambda _: None,
        object_pairs_hook=_object,
    )


def column_of(values: Sequence[object], column: str, uri: str, may_be_lists: bool = False) -> pa.Array:
    """Return parsed values as a column of text, or of lists of text if they are allowed and a value is a list.

    Args:
        values: as `parsed` returns them; true and false become text in lower case.
        column: its name, for the error.
        uri: path or URI of the source, for the error.
        may_be_lists: whether lists of texts are allowed, as they are for captions.

    Raises:
        InputError: a value is an object or a list that is not allowed, or its name is repeated in its object.

    """
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowException, UnicodeError):
        pass
    if may_be_lists and any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) else [_cell(value, column, uri)] for value in values]
        checked = [[_element(value, column, uri) for value in texts] for texts in lists]
        return pa.array(checked, pa.list_(pa.string()))
    return pa.array([_cell(value, column, uri) for value in values], pa.string())


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        found |= {name: Doubled() for name, count in counts.items() if count > 1}
    return found


def _element(value: object, column: str, uri: str) -> str | None:
    if not isinstance(value, str | None) or isinstance(value, Spelling):
        raise InputError(
            f"{uri} cannot be read as a list: column {column!r} has lists of values other than text; nothing was started; "
            "store it as text or as lists of texts"
        )
    return _cell(value, column, uri)


def _cell(value: object, column: str, uri: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Doubled):
        raise InputError(
            f"{uri} cannot be read as a list: an object has {column!r} more than once; nothing was started; keep only one of them"
        )
    if isinstance(value, list | dict):
        raise InputError(
            f"{uri} cannot be read as a list: column {column!r} has lists or objects; nothing was started; store it as text"
        )
    # a lone surrogate, which JSON can express but UTF-8 cannot, becomes a question mark
    return str(value).encode("utf-8", "replace").decode()
