"""Lists as they are stored on disk: one content in four formats, and one line for each that cannot be read."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.settings.errors import InputError
from corgi.sources.sources import batches, sources
from tests.support.lists import FORMATS, Row, only_caption, recipe, write_list

ROWS: list[Row] = [
    ("http://a.example/1", "007", "full", "001"),
    ("http://a.example/2", "true", "coarse", "1.50"),
    ("http://a.example/3", 'a "quoted", comma', "full", "1e5"),
    ("http://a.example/4", "two\nlines\tand a tab", "full", "2020-01-01"),
    ("http://a.example/5", "naïve ☃", "full", "NA"),
]
ROWS_OF_TSV: list[Row] = [
    (url, caption.translate({9: " ", 10: " "}), kind, group) for url, caption, kind, group in ROWS if caption
]
"""The same without what a TSV cannot hold."""


def rows_for(ending: str) -> list[Row]:
    return ROWS_OF_TSV if ending == "tsv" else ROWS


def read(*lists, **plan):
    settings = recipe(Path("runs"), *lists, **plan).plan
    return [
        {
            "url": row["url"],
            "caption": only_caption(row),
            "kind": row["kind"],
            "group": row["group"],
        }
        for source in sources(settings)
        for batch in batches(source, settings)
        for row in batch.to_pylist()
    ]


def refused(*lists, **plan) -> str:
    with pytest.raises(InputError) as found:
        read(*lists, **plan)
    assert found.value.exit_code == 3
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("ending", FORMATS)
def test_cells_are_text_exactly_as_written(tmp_path, ending):
    rows = read(write_list(tmp_path / f"list.{ending}", rows_for(ending)))
    assert [tuple(row.values()) for row in rows] == rows_for(ending)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("word", ["007", "True", "1e5", "2020-01-01 00:00", "NA", "1.50"])
def test_a_column_that_looks_like_numbers_or_dates_is_still_text(tmp_path, ending, word):
    rows = read(write_list(tmp_path / f"list.{ending}", [("http://a.example/1", word, "full", word)] * 3))
    assert {(row["caption"], row["group"]) for row in rows} == {(word, word)}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_compressed_text_is_read(tmp_path, ending):
    plain = write_list(tmp_path / f"list.{ending}", rows_for(ending))
    packed = tmp_path / f"packed.{ending}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(packed) == read(plain)


def test_numbers_in_json_and_parquet_become_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"url": "http://a.example/1", "caption": 7}\n')
    pq.write_table(pa.table({"url": ["http://a.example/1"], "caption": [7]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read(tmp_path / name, caption_kind_col=None, group_col=None)[0]["caption"] == "7"


def test_a_json_column_that_starts_with_a_long_run_of_nulls_is_text(tmp_path):
    rows: list[Row] = [
        (f"http://a.example/{n}", None if n < 30_000 else "word", "full", "g") for n in range(30_010)
    ]
    captions = [row["caption"] for row in read(write_list(tmp_path / "list.jsonl", rows))]
    assert captions == [row[1] for row in rows]


@pytest.mark.parametrize("column", ["url", "caption"])
def test_two_columns_of_one_name_are_one_line_unless_they_are_not_read(tmp_path, column):
    arrays = [pa.array(["http://a.example/1"]), pa.array(["x"]), pa.array(["http://a.example/1"])]
    table = pa.Table.from_arrays(arrays, ["url", "caption", column])
    pq.write_table(table, tmp_path / "a.parquet")
    bare = {"caption_kind_col": None, "group_col": None}
    assert f"2 columns {column!r}" in refused(tmp_path / "a.parquet", **bare)
    if column == "caption":
        assert len(read(tmp_path / "a.parquet", caption_col=None, **bare)) == 1


def test_dictionary_and_large_strings_are_text(tmp_path):
    url = pa.array(["http://a.example/1"], pa.large_string())
    pq.write_table(
        pa.table({"url": url, "caption": pa.array(["word"]).dictionary_encode()}), tmp_path / "a.parquet"
    )
    row = read(tmp_path / "a.parquet", caption_kind_col=None, group_col=None)[0]
    assert row == {"url": "http://a.example/1", "caption": "word", "kind": None, "group": None}


def test_a_list_may_have_urls_alone(tmp_path):
    (tmp_path / "a.csv").write_text("url\nhttp://a.example/1\n")
    row = read(tmp_path / "a.csv", caption_col=None, caption_kind_col=None, group_col=None)[0]
    assert row == {"url": "http://a.example/1", "caption": None, "kind": None, "group": None}


def test_globs_names_with_brackets_and_order_of_arguments(tmp_path):
    first = write_list(tmp_path / "list[1].csv", ROWS[:2])
    second = write_list(tmp_path / "list[2].csv", ROWS[2:])
    assert read(first, second) == read(second, first) == read(tmp_path / "*.csv")
    assert len(read(first)) == 2


def test_the_same_file_twice_counts_once(tmp_path):
    path = write_list(tmp_path / "a.csv", ROWS)
    copy = write_list(tmp_path / "b" / "copy.csv", ROWS)
    assert len(read(path, copy, path)) == len(ROWS)


def test_no_list_is_named():
    assert "plan.input names no list" in refused()


def test_a_missing_list(tmp_path):
    assert f"{tmp_path / 'no.csv'} does not exist" in refused(tmp_path / "no.csv")


def test_a_folder_is_no_list(tmp_path):
    assert "cannot be read" in refused(tmp_path)


def test_an_unknown_ending(tmp_path):
    (tmp_path / "list.xls").write_text("http://a.example/1\n")
    assert "use .parquet, .csv, .tsv, .jsonl or .txt" in refused(tmp_path / "list.xls")


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("setting", "value"),
    [("url_col", "link"), ("caption_col", "text"), ("caption_kind_col", "sort"), ("group_col", "base")],
)
def test_a_missing_column_is_named_beside_those_there_are(tmp_path, ending, setting, value):
    line = refused(write_list(tmp_path / f"list.{ending}", rows_for(ending)), **{setting: value})
    assert f"no column {value!r} (it has url, caption, kind, concept)" in line
    assert f"plan.{setting}" in line


@pytest.mark.parametrize("ending", FORMATS)
def test_an_unknown_caption_kind_is_named(tmp_path, ending):
    line = refused(
        write_list(tmp_path / f"list.{ending}", [*rows_for(ending), ("http://a.example/6", "x", "ful", "g")])
    )
    assert "caption kind 'ful' is neither full nor coarse" in line


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"no parquet"),
        ("a.parquet", b""),
        ("a.csv", b""),
        ("a.csv", b"url,caption,kind,concept\nhttp://a.example/1,b,full,g\nhttp://a.example/2,b\n"),
        ("a.csv", b"url,caption,kind,concept\nhttp://a.example/1,\xff\xfe,full,g\n"),
        ("a.jsonl", b'{"url": "http://a.example/1", \n'),
        ("a.jsonl", b"\x00\x01"),
        ("a.csv.gz", b"not gzip"),
    ],
)
def test_what_is_not_what_its_name_says_is_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert str(tmp_path / name) in refused(tmp_path / name)


def test_a_truncated_parquet_is_one_line(tmp_path):
    path = write_list(tmp_path / "a.parquet", ROWS * 100)
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refused(path)


def test_a_column_of_lists_is_one_line(tmp_path):
    pq.write_table(pa.table({"url": [["http://a.example/1"]], "caption": ["x"]}), tmp_path / "a.parquet")
    assert "cannot be read as a list" in refused(
        tmp_path / "a.parquet", caption_kind_col=None, group_col=None
    )


def test_an_extension_type_is_refused_and_runs_nothing(tmp_path):
    """A foreign Parquet file names a type of its own; reading it must not call that type's code for its values."""

    class Canary(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.string(), "tests.canary")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            return cls()

    pa.register_extension_type(Canary())
    try:
        urls = pa.ExtensionArray.from_storage(Canary(), pa.array(["http://a.example/1"]))
        pq.write_table(pa.table({"url": urls, "caption": ["x"]}), tmp_path / "a.parquet")
        assert "extension type" in refused(tmp_path / "a.parquet", caption_kind_col=None, group_col=None)
    finally:
        pa.unregister_extension_type("tests.canary")
