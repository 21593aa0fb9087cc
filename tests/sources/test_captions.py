"""What a raw value says: a missing one no caption, a text one, a list of texts several, anything else one line of error."""

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.settings.errors import InputError
from corgi.sources.captions import captions_of
from corgi.sources.cells import column_of, parsed

NAN, INFINITY = float("nan"), float("inf")
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MISSING = st.sampled_from([None, NAN, INFINITY, -INFINITY])
LISTS = [pa.list_, pa.large_list]
TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
]


def said(values, kind=None) -> list[list[str]]:
    return captions_of(pa.array(values, kind), "caption", "list").to_pylist()


def refused(values, kind=None) -> str:
    with pytest.raises(InputError, match="column 'caption'") as found:
        said(values, kind)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_of_any_type_is_one_caption(kind):
    assert said(["a", None, "é"], kind) == [["a"], [], ["é"]]


@pytest.mark.parametrize("list_of", LISTS)
@pytest.mark.parametrize("kind", [kind for kind in TEXTS if not pa.types.is_dictionary(kind)])
def test_a_list_of_texts_is_several_captions(list_of, kind):
    assert said([["a", None, "b"], None, [], ["c"]], list_of(kind)) == [["a", "b"], [], [], ["c"]]


def test_a_list_of_fixed_length_is_several_captions():
    assert said([["a", "b"], None, ["c", None]], pa.list_(pa.string(), 2)) == [["a", "b"], [], ["c"]]


def test_a_part_of_a_column_has_its_own_captions():
    column = pa.array([["a"], ["b", "c"], None, ["d"]])
    assert captions_of(column[1:], "caption", "list").to_pylist() == [["b", "c"], [], ["d"]]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_float_that_is_no_number_is_no_caption(kind):
    assert said([NAN, 2.5, None, INFINITY, -INFINITY], kind) == [[], ["2.5"], [], [], []]


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (True, "true"), (Decimal("1.50"), "1.50")])
def test_a_number_or_truth_value_is_its_text(value, text):
    assert said([value, None]) == [[text], []]


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "inf", "NA"])
def test_a_word_stays_a_word(word):
    assert said([word, [word]][:1]) == [[word]]
    assert said([[word]]) == [[word]]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([{"en": "x"}], None),
        ([0], pa.timestamp("us", "UTC")),
        ([0], pa.date32()),
        ([[1, 2]], None),
        ([[1.5]], None),
        ([[True]], None),
        ([[["x"]]], None),
        ([[("en", "x")]], pa.map_(pa.string(), pa.string())),
    ],
)
def test_any_other_type_is_one_line(values, kind):
    assert "not captions" in refused(values, kind)


@pytest.mark.parametrize("kind", [pa.binary(), pa.list_(pa.binary())])
def test_bytes_that_are_no_text_are_one_line(kind):
    refused([b"\xff"] if kind == pa.binary() else [[b"\xff"]], kind)


@given(st.lists(st.one_of(MISSING, TEXT, st.lists(st.one_of(st.none(), TEXT)))))
def test_json_and_parquet_say_the_same(values):
    """A mixture of missing values, texts and lists of texts: what JSON gives and what a column of lists gives."""
    lines = [json.dumps(value).encode() for value in values]
    from_json = captions_of(
        column_of([parsed(line) for line in lines], "caption", "list", True), "caption", "list"
    )
    as_lists = [value if isinstance(value, list) else [value] for value in values]
    wanted = [[text for text in texts if isinstance(text, str)] for texts in as_lists]
    assert from_json.to_pylist() == wanted
    assert said(wanted, pa.list_(pa.string())) == wanted
