"""Every format and compression gives back the text that went in, whatever the text."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corgi.settings.errors import InputError
from corgi.sources import text
from corgi.sources.sources import batches, sources
from tests.support.lists import FORMATS, only_caption, recipe, write_list

COMPRESSIONS = ("", ".gz", ".zst")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


def packed(path: Path, compression: str) -> Path:
    """Return the file compressed, the plain one gone."""
    if not compression:
        return path
    target = path.with_name(path.name + compression)
    with pa.CompressedOutputStream(str(target), {".gz": "gzip", ".zst": "zstd"}[compression]) as sink:
        sink.write(path.read_bytes())
    path.unlink()
    return target


def rows_of(path: Path, **plan) -> list[dict]:
    chosen = recipe(path.parent, path, **plan).plan
    return [
        row for source in sources(chosen) for batch in batches(source, chosen) for row in batch.to_pylist()
    ]


@pytest.mark.parametrize(
    ("ending", "compression"), [(e, c) for e in FORMATS for c in COMPRESSIONS if e != "parquet" or not c]
)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, st.sampled_from(["full", "coarse"]), TEXT), min_size=1, max_size=8)
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_text_survives_every_format_and_compression(tmp_path_factory, ending, compression, rows):
    if ending == "tsv":  # which cannot hold them
        rows = [tuple(cell.translate({9: " ", 10: " "}) for cell in row) for row in rows]
    folder = tmp_path_factory.mktemp("list")
    found = rows_of(packed(write_list(folder / f"list.{ending}", rows), compression))
    assert [(row["url"], only_caption(row), row["kind"], row["group"]) for row in found] == rows


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(
    urls=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=9), min_size=1
    )
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_text_is_one_url_a_line(tmp_path_factory, compression, urls):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_bytes("\n\n".join(urls).encode())
    assert [row["url"] for row in rows_of(packed(path, compression))] == urls


def test_a_text_with_windows_line_ends_and_a_mark_of_its_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhttp://a/1\r\nhttp://a/2\r\n")
    assert [row["url"] for row in rows_of(tmp_path / "a.txt")] == ["http://a/1", "http://a/2"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
def test_every_line_end_ends_a_row(tmp_path, name, end):
    urls = [f"http://a/{number}" for number in range(3)]
    lines = [json.dumps({"url": url}) for url in urls] if name == "a.jsonl" else urls
    header = ["url"] if name in ("a.csv", "a.tsv") else []
    for last in ("", end):
        (tmp_path / name).write_bytes((end.join([*header, *lines]) + last).encode())
        found = rows_of(tmp_path / name, caption_col=None, caption_kind_col=None, group_col=None)
        assert [row["url"] for row in found] == urls


@given(
    st.lists(st.sampled_from(["http://a/1", '{"url": 1}', "", " ", "\t", '"', "{}"])),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=60)
def test_rows_of_text_and_json_lines_are_the_lines_that_are_not_blank(tmp_path_factory, lines, end):
    folder = tmp_path_factory.mktemp("list")
    bare = {"caption_col": None, "caption_kind_col": None, "group_col": None}
    objects = ['{"url": "http://a/0"}', *(line for line in lines if line != '"' and "http" not in line)]
    for name, content in (("a.txt", lines), ("a.jsonl", objects)):
        (folder / name).write_bytes(end.join(content).encode())
        with (folder / name).open() as file:
            assert len(rows_of(folder / name, **bare)) == sum(bool(line.strip()) for line in file)


def test_what_follows_a_tab_in_a_text_is_the_caption(tmp_path):
    (tmp_path / "a.txt").write_text("http://a/1\ta caption\nhttp://a/2\nhttp://a/3 \t\n")
    found = [(row["url"], only_caption(row)) for row in rows_of(tmp_path / "a.txt")]
    assert found == [("http://a/1", "a caption"), ("http://a/2", None), ("http://a/3", None)]
    urls = [(row["url"], only_caption(row)) for row in rows_of(tmp_path / "a.txt", caption_col=None)]
    assert urls == [("http://a/1", None), ("http://a/2", None), ("http://a/3", None)]


def test_two_tabs_in_a_text_are_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("http://a/0\nhttp://a/1\ta caption\t0.3\n")
    with pytest.raises(InputError, match="row 1: more than a URL, a tab and a caption"):
        rows_of(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.txt.gz"])
def test_utf_16_is_named(tmp_path, name, encoding):
    data = "url,caption\nhttp://a/1,x\n".encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(InputError, match=f"{encoding[:6].upper()}, not UTF-8"):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_one_line(tmp_path, name, encoding):
    text = "url,caption,kind,concept\nhttp://a/ü,ü,full,g\n"
    if name == "a.tsv":
        text = text.replace(",", "\t")
    if name == "a.jsonl":
        cells = {"url": "http://a/ü", "caption": "ü", "kind": "full", "concept": "g"}
        text = json.dumps(cells, ensure_ascii=False) + "\n"
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    if name == "a.parquet":
        bad = pa.array([b"http://a/\xfc"]).view(pa.string())
        pq.write_table(pa.table({"url": bad, "caption": bad, "kind": ["full"], "concept": ["g"]}), path)
    with pytest.raises(InputError) as found:
        rows_of(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_rows_of_json_whose_values_change_their_kind(tmp_path):
    cells = ["007", 7, 1e5, True, None, "2020-01-01", 12345678901234567890123]
    lines = [json.dumps({"url": f"http://a/{n}", "caption": cell}) for n, cell in enumerate(cells)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = [
        only_caption(row) for row in rows_of(tmp_path / "a.jsonl", caption_kind_col=None, group_col=None)
    ]
    assert found == ["007", "7", "100000.0", "true", None, "2020-01-01", "12345678901234567890123"]


@pytest.mark.parametrize(
    ("cell", "text"),
    [('"\\ud800"', "?"), ("NaN", None), ("-Infinity", None), ('"NaN"', "NaN"), ("1e400", "1e400")],
)
def test_odd_json_cells_are_text_or_missing(tmp_path, cell, text):
    (tmp_path / "a.jsonl").write_text(f'{{"url": "http://a/1", "caption": {cell}}}\n')
    rows = rows_of(tmp_path / "a.jsonl", caption_kind_col=None, group_col=None)
    assert only_caption(rows[0]) == text


@pytest.mark.parametrize("cell", ["[1]", '{"a": 1}', '[["x"]]', "[true]", "[NaN, 2]"])
def test_json_cells_that_are_no_cells_are_one_line(tmp_path, cell):
    (tmp_path / "a.jsonl").write_text(f'{{"url": "http://a/1", "caption": {cell}}}\n')
    with pytest.raises(InputError, match="has lists"):
        rows_of(tmp_path / "a.jsonl", caption_kind_col=None, group_col=None)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"url": ', "[1]", "7", '"text"', "\x00"])
def test_a_line_that_is_no_object_is_one_line(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(f"{line}\n")
    with pytest.raises(InputError, match="row 0") as found:
        rows_of(tmp_path / "a.jsonl")
    assert "\n" not in str(found.value)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 2**20)
    monkeypatch.setattr(text, "CHUNK_BYTES", 2**18)
    body = io.BytesIO()
    with gzip.open(body, "wb") as sink:
        for _ in range(8):
            sink.write(bytes(2**20).replace(b"\0", b"a"))
    (tmp_path / "a.txt.gz").write_bytes(body.getvalue())
    with pytest.raises(InputError, match="longer than 1 MiB"):
        rows_of(tmp_path / "a.txt.gz")


def test_a_cut_compressed_list_is_one_line(tmp_path):
    rows = [(f"http://a/{n}", "x" * (n % 50), "full", "g") for n in range(5000)]
    for compression in (".gz", ".zst"):
        path = packed(write_list(tmp_path / compression / "a.csv", rows), compression)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError) as found:
            rows_of(path)
        assert "\n" not in str(found.value)


def test_further_columns_and_hashes_travel_as_text(tmp_path):
    good, bad = "A" * 64, "no hash"
    rows = [
        {"url": "http://a/1", "n": 7, "sha": good},
        {"url": "http://a/2", "sha": bad},
        {"url": "http://a/3", "n": 8},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = rows_of(
        tmp_path / "a.jsonl",
        caption_col=None,
        caption_kind_col=None,
        group_col=None,
        verify_hash=["sha", "sha256"],
        save_additional_columns=["n", "url"],
    )
    assert [row["expected_hash"] for row in found] == [f"sha256:{good.lower()}", None, None]
    assert [row["reason"] for row in found] == [None, "bad_hash", None]
    assert [dict(row["additional"]) for row in found] == [
        {"n": "7", "url": "http://a/1"},
        {"n": None, "url": "http://a/2"},
        {"n": "8", "url": "http://a/3"},
    ]
