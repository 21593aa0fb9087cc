"""A list whose rows are read as before keeps the key of its plan; one whose rows changed has another."""

import gzip
import hashlib
import json

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources import revision as module
from corgi.sources.sources import batches, sources
from corgi.storage import paths
from corgi.storage.paths import open_stream
from tests.support.lists import only_caption
from tests.support.tars import write_tar


def revision_of(path, **plan) -> str:
    return sources(PlanSettings.model_validate({"input": str(path), **plan}))[0].revision


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "text", "is_read_otherwise"),
    [
        ("a.tsv", 'url\tcaption\nhttp://a/1\t5" wide\n', False),
        ("a.tsv", 'url\tcaption\nhttp://a/1\t"word\n', True),
        ("a.tsv", '"url"\tcaption\nhttp://a/1\tword\n', True),
        ("a.csv", 'url,caption\nhttp://a/1,"a word"\n', False),
        ("a.csv", 'url,caption\nhttp://a/1,"a word\n', True),
        ("a.jsonl", '{"url": "http://a/1", "caption": "word"}\n', False),
        ("a.jsonl", '{"url": "http://a/1", "caption": NaN}\n', True),
        ("a.jsonl", '{"url": "http://a/1", "caption": -Infinity}\n', True),
        ("a.txt", "http://a/1\r\nhttp://a/2\n", False),
        ("a.txt", "http://a/1\rhttp://a/2\r", True),
        ("a.txt", "http://a/1\tword\n", True),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [3, 4096])
def test_only_texts_that_are_read_otherwise_have_another_key(
    tmp_path, monkeypatch, name, text, is_read_otherwise, compression, chunk_bytes
):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    path, data = tmp_path / (name + compression), text.encode()
    path.write_bytes(gzip.compress(data) if compression else data)
    assert revision_of(path) == ("0.2" if is_read_otherwise else "")
    assert revision_of(path, quoting="csv") == ""


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_a_text_is_read_once_for_its_name_and_how_it_is_read(tmp_path, monkeypatch, name):
    """A list of 60 GB is read once before the first line of --plan, and once more for its rows."""
    path, looks = tmp_path / name, []
    path.write_bytes(b"url\tcaption\n" + b'http://a/1\t"NaN"\r' * 100)
    monkeypatch.setattr(module, "open_stream", lambda place: looks.append(place) or open_stream(place))
    monkeypatch.setattr(paths, "sha256_once", lambda place, facts: pytest.fail("it is read a second time"))
    chosen = PlanSettings.model_validate({"input": str(path)})
    digests = {source.sha256 for _ in range(3) for source in sources(chosen)}
    assert digests == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert looks == [str(path)]


@pytest.mark.parametrize(
    ("column", "kind", "is_read_otherwise"),
    [("caption", pa.float64(), True), ("caption", pa.int64(), False), ("similarity", pa.float32(), False)],
)
def test_a_table_has_another_key_where_a_column_that_means_something_holds_floats(
    tmp_path, column, kind, is_read_otherwise
):
    columns = {"url": ["http://a/1"], "caption": ["x"]} | {column: pa.array([1], kind)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = revision_of(
        tmp_path / "a.parquet", save_additional_columns=["similarity"] if column != "caption" else []
    )
    assert found == ("0.2" if is_read_otherwise else "")


def test_the_meaning_of_a_list_that_is_read_as_before_is_that_of_0_1(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"url": "http://a/1", "caption": "word"}))
    chosen = PlanSettings.model_validate({"input": str(path)})
    assert sources(chosen)[0].meaning == f"{hashlib.sha256(path.read_bytes()).hexdigest()} jsonl"


@pytest.mark.parametrize(("ending", "delimiter"), [("tsv", "\t"), ("csv", ",")])
@given(
    rows=st.lists(
        st.tuples(st.text(st.sampled_from('a" '), max_size=3), st.text(st.sampled_from('a" '), max_size=3))
    )
)
@settings(max_examples=150)
def test_without_another_key_the_rows_are_those_that_0_1_read(tmp_path_factory, ending, delimiter, rows):
    """0.1 read both with Arrow, whose quoting was always on."""
    path = tmp_path_factory.mktemp("list") / f"a.{ending}"
    lines = [delimiter.join(("u" + url, caption)) for url, caption in rows]
    path.write_text("".join(f"{line}\n" for line in [f"url{delimiter}caption", *lines]))
    if revision_of(path):
        return
    text = pa_csv.ConvertOptions(column_types={"url": pa.string(), "caption": pa.string()})
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    chosen = PlanSettings.model_validate({"input": str(path)})
    try:
        before = pa_csv.read_csv(str(path), parse_options=parse, convert_options=text).to_pylist()
        read = [row for batch in batches(sources(chosen)[0], chosen) for row in batch.to_pylist()]
    except (pa.ArrowInvalid, InputError):  # what either refuses has no rows to compare
        return
    assert [(row["url"], only_caption(row)) for row in read] == [
        (row["url"], row["caption"]) for row in before
    ]


NOTED = json.dumps({"caption": "words", "url": "http://a/1"}).encode()
ORDINARY = [
    ("0.jpg", b"0"),
    ("0.json", NOTED),
    ("0.txt", b"words"),
    ("1.npy", b"x"),
    ("2.PNG", b"2"),
    ("README", b"x"),
]


@pytest.mark.parametrize(
    ("further", "is_read_otherwise"),
    [
        ([], False),
        ([("3.jpg", b"3"), ("3.cls", b"7")], False),
        ([("3.json", b'{"caption": "no picture"}')], False),
        ([("shot.1.jpg", b"3")], True),
        ([("3.jpg", b"3"), ("3.png", b"4")], True),
        ([("3.bmp", b"3")], True),
        ([("._3.jpg", b"3")], True),
        ([("3.jpg", b"3"), ("README", b"x"), ("3.txt", b"x")], True),
        ([("3.jpg", b"3"), ("3.json", b'{"caption": ["one", "two"]}')], True),
        ([("3.jpg", b"3"), ("3.json", b'{"caption": NaN}')], True),
        ([("3.jpg", b"3"), ("3.json", NOTED), ("3.txt", b"")], True),
        ([("3.jpg", b"3"), ("3.caption", b"words")], True),
    ],
)
def test_only_tars_that_are_read_otherwise_have_another_key(tmp_path, further, is_read_otherwise):
    path = write_tar(tmp_path / "a.tar", [*ORDINARY, *further])
    assert revision_of(path) == ("0.2" if is_read_otherwise else "")


@pytest.mark.parametrize(
    ("further", "is_read_otherwise"),
    [
        ([], False),
        ([("3.jpg", b"3"), ("3.json", b'{"caption": ["one", "two"]}')], True),
        ([("3.jpg", b"3"), ("3.json", b'{"caption": NaN}')], True),
        ([("3.jpg", b"3"), ("3.png", b"4"), ("3.json", NOTED)], True),
        ([("3.jpg", b"3"), ("3.json", NOTED), ("3.txt", b"")], True),
    ],
)
def test_only_folders_that_are_read_otherwise_have_another_key(tmp_path, further, is_read_otherwise):
    for name, data in [*ORDINARY, *further]:
        (tmp_path / name).write_bytes(data)
    assert revision_of(tmp_path, input_format="files") == ("0.2" if is_read_otherwise else "")
