"""Parquet with pictures inside: rows in are rows out, each with its picture or with a reason, whatever the rows hold."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.download.local import LocalReader, locations_of
from corgi.flow.dag import Selection
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import InputError
from corgi.sources.sources import batches, sources
from tests.support.lists import plan_dag, recipe
from tests.support.results import body_of
from tests.support.tars import picture

BARE = {"caption_kind_col": None, "group_col": None}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PICTURES = [picture(seed) for seed in range(3)]
CELL = st.sampled_from([*PICTURES, b"no picture", b"", None])
URL = st.sampled_from(["http://a.example/1", "http://a.example/2", "file:///etc/passwd", " ", "", None])
CAPTIONS = st.sampled_from([["one"], ["one", "two"], [None, "nan"], [], None])
ROWS = st.lists(st.tuples(CELL, URL, CAPTIONS), min_size=1, max_size=9)


def cells(rows: list[tuple], kind: str) -> pa.Array:
    """Return the pictures as bytes, or as the struct that Hugging Face datasets write; a missing one as null or by path."""
    if kind != "struct":
        return pa.array([cell for cell, _, _ in rows], kind)
    by_path: list[dict[str, Any] | None] = [None, {"bytes": None, "path": "/etc/passwd"}]
    values = [
        {"bytes": c, "path": "x"} if c is not None else by_path[n % 2] for n, (c, _, _) in enumerate(rows)
    ]
    return pa.array(values, STRUCT)


def columns_of(rows: list[tuple], kind: str, name: str, has_urls: bool) -> dict[str, pa.Array]:
    columns = {
        name: cells(rows, kind),
        "caption": pa.array([captions for _, _, captions in rows], pa.list_(pa.string())),
        f"{name}.size": pa.array([1] * len(rows)),  # a name with a dot, as flattened tables have
    }
    return columns | ({"url": pa.array([url for _, url, _ in rows], pa.string())} if has_urls else {})


@given(
    rows=ROWS,
    kind=st.sampled_from(["binary", "large_binary", "struct"]),
    name=st.sampled_from(["image", "jpg", "the.picture"]),
    has_urls=st.booleans(),
    group_rows=st.integers(1, 9),
)
@settings(max_examples=60)
def test_rows_in_are_rows_out_each_with_its_picture_or_a_reason(
    tmp_path_factory, rows, kind, name, has_urls, group_rows
):
    path = tmp_path_factory.mktemp("list") / "a.parquet"
    pq.write_table(pa.table(columns_of(rows, kind, name, has_urls)), path, row_group_size=group_rows)
    chosen = recipe(path.parent / "runs", path, image_col=name, **BARE)
    found = [
        row
        for source in sources(chosen.plan)
        for part in batches(source, chosen.plan)
        for row in part.to_pylist()
    ]
    assert len(found) == len(rows)
    reader = LocalReader(DownloadSettings(), locations_of(chosen.plan))
    for row, (data, url, captions) in zip(found, rows, strict=True):
        assert row["reason"] == (None if data else "no_picture")
        assert (body_of(reader.read(row["location"])) if data else None) == (data or None)
        assert row["captions"] == [text for text in captions or [] if text is not None]
        assert (row["content"] is None) == bool(has_urls and (url or "").strip())


@given(rows=ROWS, kind=st.sampled_from(["binary", "struct"]), has_urls=st.booleans())
@settings(max_examples=15)
def test_a_plan_counts_every_row_as_kept_or_rejected(tmp_path_factory, rows, kind, has_urls):
    folder = tmp_path_factory.mktemp("list")
    pq.write_table(pa.table(columns_of(rows, kind, "image", has_urls)), folder / "a.parquet")
    dag = plan_dag(recipe(folder / "runs", folder / "a.parquet", **BARE))
    dag.execute(Selection(), lambda line: None)
    counts = dag.run.stages()["plan"].rows
    assert counts.rows_in == len(rows) == counts.kept + sum(counts.rejected.values())


@pytest.mark.parametrize("column", ["image", "caption"])
def test_two_columns_of_one_name_are_one_line(tmp_path, column):
    values = {"image": pa.array(PICTURES), "caption": pa.array(["x"] * 3)}
    table = pa.Table.from_arrays([*values.values(), values[column]], [*values, column])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"2 columns '{column}'"):
        read(tmp_path / "a.parquet")


def test_a_missing_url_among_floats_leaves_the_picture_named_by_its_content(tmp_path):
    urls = pa.array([float("nan")] * 3)
    pq.write_table(pa.table({"image": PICTURES, "caption": ["x"] * 3, "url": urls}), tmp_path / "a.parquet")
    assert [row["content"] is None for row in read(tmp_path / "a.parquet")] == [False] * 3


def read(path: Path) -> list[dict[str, Any]]:
    chosen = recipe(path.parent, path, **BARE).plan
    return [row for source in sources(chosen) for part in batches(source, chosen) for row in part.to_pylist()]
