"""Cells become text as they are written, or missing cells, or one line of error."""

from typing import Any

import pyarrow as pa
import pytest

from corgi.settings.errors import InputError
from corgi.sources.cells import column_of, parsed, text_of


def test_a_float_that_is_no_number_is_a_missing_cell():
    column = pa.array([float("nan"), 1.5, float("inf"), None])
    assert text_of(column, "group", "list").to_pylist() == [None, "1.5", None, None]


def test_words_for_missing_numbers_stay_text():
    assert text_of(pa.array(["nan", "None", ""]), "group", "list").to_pylist() == ["nan", "None", ""]


@pytest.mark.parametrize("number", ["7", "-0", "1e5", "1.50", "1e400", "9" * 1000])
def test_a_number_of_json_keeps_its_spelling(number):
    row: Any = parsed(f'{{"cell": {number}}}'.encode())
    assert column_of([row["cell"]], "cell", "list").to_pylist() == [number]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "null"])
def test_a_constant_of_json_that_is_no_number_is_a_missing_cell(constant):
    assert column_of([parsed(constant.encode())], "cell", "list").to_pylist() == [None]


@pytest.mark.parametrize("value", [["x"], {"a": "x"}])
def test_a_list_or_object_is_one_line(value):
    with pytest.raises(InputError, match="list: column 'cell' has lists or objects"):
        column_of(["text", value], "cell", "list")


@pytest.mark.parametrize("may_be_lists", [True, False])
@pytest.mark.parametrize("other", ['{"a": ["x"]}', '{"a": "x"}', "{}"])
def test_a_name_that_an_object_has_twice_is_one_line_where_it_is_read(may_be_lists, other):
    rows: list[Any] = [parsed(text) for text in ('{"a": "x", "b": 1, "a": "y"}', other)]
    assert [row.get("b") for row in rows] == ["1", None]
    if other == '{"a": ["x"]}' and not may_be_lists:
        rows.pop()
    with pytest.raises(InputError) as found:
        column_of([row.get("a") for row in rows], "a", "list.jsonl", may_be_lists=may_be_lists)
    assert "list.jsonl" in str(found.value)
    assert "has 'a' more than once" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_lone_surrogate_becomes_a_question_mark_inside_a_list_too():
    assert column_of(["\ud800"], "cell", "list").to_pylist() == ["?"]
    assert column_of([["\ud800"], "b"], "cell", "list", may_be_lists=True).to_pylist() == [["?"], ["b"]]
