"""Hugging Face's image folders: each picture takes the caption of the row that names it, and no row is lost."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corgi.flow.dag import Selection, open_dag
from corgi.planning.stages import Plan
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.sources import batches, sources
from tests.support.lists import recipe

ENDINGS = ("jsonl", "csv", "parquet")
Cells = dict[str, Any]


def metadata(path: Path, rows: list[Cells]) -> Path:
    """Write rows as a metadata file, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def rows_of(folder: Path, **plan: Any) -> list[Cells]:
    chosen = PlanSettings.model_validate({"input": str(folder), "caption_col": "text", **plan})
    return [
        row for source in sources(chosen) for batch in batches(source, chosen) for row in batch.to_pylist()
    ]


def said(folder: Path, **plan: Any) -> list[tuple[str | None, list[str], str | None]]:
    """Return (path inside the folder, captions, reason) of each row."""
    rows = rows_of(folder, **plan)
    return [
        (row["location"] and row["location"].partition("/")[2], row["captions"], row["reason"])
        for row in rows
    ]


def refused(folder: Path, **plan: Any) -> str:
    with pytest.raises(InputError) as found:
        rows_of(folder, **plan)
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("naming", ["file_name", "image"])
@pytest.mark.parametrize("below", ["", "train/"])
def test_rows_name_the_pictures_below_their_folder(tmp_path, ending, naming, below):
    """In the folder itself, and where the folder holds nothing but further folders."""
    folder = pictures(tmp_path / "a", f"{below}0.jpg", f"{below}deep/1.PNG", f"{below}2.jpg")
    rows = [{naming: f"{below}{name}", "text": name} for name in ("0.jpg", "deep/1.PNG", "gone.jpg")]
    metadata(folder / f"metadata.{ending}", rows)
    assert said(folder) == [
        (f"{below}0.jpg", ["0.jpg"], None),
        (f"{below}2.jpg", [], None),
        (f"{below}deep/1.PNG", ["deep/1.PNG"], None),
        (None, ["gone.jpg"], "no_picture"),
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_nearest_file_counts_and_the_others_are_asked_where_it_is_silent(tmp_path, ending):
    folder = pictures(tmp_path / "a", "train/0.jpg", "train/1.jpg", "test/0.jpg")
    above = [
        {"file_name": name, "text": f"above {name}"} for name in ("train/0.jpg", "train/1.jpg", "test/0.jpg")
    ]
    metadata(folder / f"metadata.{ending}", above)
    metadata(folder / "train" / f"metadata.{ending}", [{"file_name": "0.jpg", "text": "near"}])
    assert said(folder) == [
        ("test/0.jpg", ["above test/0.jpg"], None),
        ("train/0.jpg", ["near"], None),
        ("train/1.jpg", ["above train/1.jpg"], None),
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_rows_of_one_picture_are_several_captions(tmp_path, ending):
    folder = pictures(tmp_path / "a", "0.jpg")
    metadata(
        folder / f"metadata.{ending}",
        [{"file_name": "0.jpg", "text": word} for word in ("one", "two", "three")],
    )
    assert said(folder) == [("0.jpg", ["one", "two", "three"], None)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_list_of_texts_is_several_captions_and_a_missing_one_none(tmp_path, ending):
    folder = pictures(tmp_path / "a", "0.jpg", "1.jpg")
    rows = [{"file_name": "0.jpg", "text": ["one", "two"]}, {"file_name": "1.jpg", "text": None}]
    metadata(folder / f"metadata.{ending}", rows)
    assert said(folder) == [("0.jpg", ["one", "two"], None), ("1.jpg", [], None)]


def test_not_a_number_is_no_caption(tmp_path):
    folder = pictures(tmp_path / "a", "0.jpg", "1.jpg")
    rows = [{"file_name": "0.jpg", "text": float("nan")}, {"file_name": "1.jpg", "text": 1.5}]
    metadata(folder / "metadata.parquet", rows)
    assert said(folder) == [("0.jpg", [], None), ("1.jpg", ["1.5"], None)]


def test_a_text_beside_a_picture_comes_first(tmp_path):
    folder = pictures(tmp_path / "a", "0.jpg", "1.jpg")
    (folder / "0.txt").write_text("beside")
    (folder / "1.txt").write_text(" ")
    metadata(folder / "metadata.csv", [{"file_name": f"{n}.jpg", "text": f"words {n}"} for n in range(2)])
    assert said(folder) == [("0.jpg", ["beside"], None), ("1.jpg", ["words 1"], None)]


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "."])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    pictures(tmp_path, "secret.jpg")
    folder = pictures(tmp_path / "a", "0.jpg")
    metadata(folder / "metadata.csv", [{"file_name": name, "text": "words"}])
    assert said(folder) == [("0.jpg", [], None), (None, ["words"], "no_picture")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_a_naming_column_it_is_a_list_as_before(tmp_path, ending):
    metadata(tmp_path / "a" / f"metadata.{ending}", [{"url": "http://a.example/1", "text": "words"}])
    assert [row["url"] for row in rows_of(tmp_path / "a")] == ["http://a.example/1"]
    metadata(tmp_path / "b" / f"metadata.{ending}", [{"image": "http://a.example/1", "text": "words"}])
    assert [row["url"] for row in rows_of(tmp_path / "b", url_col="image")] == ["http://a.example/1"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_list_that_names_files_too_stays_one_where_there_are_none(tmp_path, ending):
    rows = [{"url": "http://a.example/1", "file_name": "1.jpg", "text": "words"}]
    metadata(tmp_path / "a" / f"metadata.{ending}", rows)
    assert [row["url"] for row in rows_of(tmp_path / "a")] == ["http://a.example/1"]


def test_a_table_of_pictures_named_metadata_stays_one(tmp_path):
    metadata(tmp_path / "a" / "metadata.parquet", [{"image": b"picture", "text": "words"}])
    assert [row["captions"] for row in rows_of(tmp_path / "a")] == [["words"]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_column_that_neither_file_nor_json_has_is_an_error(tmp_path, ending):
    folder = pictures(tmp_path / "a", "0.jpg")
    metadata(folder / f"metadata.{ending}", [{"file_name": "0.jpg", "text": "words"}])
    assert "has no column 'caption' (it has file_name, text)" in refused(folder, caption_col="caption")
    assert "has no column 'base'" in refused(folder, group_col="base")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata.csv", b"file_name,text\n0.jpg,a,b\n"),
        ("metadata.csv", b"file_name,text\n0.jpg\n"),
        ("metadata.csv", b'file_name,text\n0.jpg,"never closed\n'),
        ("metadata.csv", b"file_name,text\n0.jpg,\xff\n"),
        ("metadata.jsonl", b'{"file_name": "0.jpg"\n'),
        ("metadata.jsonl", b'{"file_name": "0.jpg", "text": {"en": "x"}}\n'),
        ("metadata.jsonl", b'{"file_name": "0.jpg", "text": "x"}\n{"text": "y"}\n'),
        ("metadata.jsonl", b'{"file_name": "0.jpg", "file_name": "1.jpg", "text": "x"}\n'),
        ("metadata.csv", b"file_name,text\n ,x\n"),
        ("metadata.parquet", b"no parquet"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, name, data):
    folder = pictures(tmp_path / "a", "0.jpg")
    (folder / name).write_bytes(data)
    assert str(folder) in refused(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    there=st.sets(st.sampled_from(["0.jpg", "a/0.jpg", "a/b/0.jpg", "a/1.PNG", "c.d/2.bmp"]), min_size=1),
    named=st.dictionaries(
        st.sampled_from(["", "a/", "a/b/", "c.d/"]),
        st.lists(
            st.sampled_from(["0.jpg", "a/0.jpg", "b/0.jpg", "1.PNG", "./0.jpg", "../0.jpg"]), min_size=1
        ),
    ),
    ending=st.sampled_from(ENDINGS),
)
def test_every_picture_and_every_name_is_a_row(tmp_path_factory, there, named, ending):
    """Pictures in are rows with a place; names without a picture are rows without one, once each."""
    folder = pictures(tmp_path_factory.mktemp("f"), *there)
    for below, names in named.items():
        rows = [{"file_name": name, "text": f"{below} {name}"} for name in names]
        metadata(folder / below / f"metadata.{ending}", rows)
    found = said(folder, caption_col="text" if named else None, input_format="files")
    assert [place for place, _, _ in found if place] == sorted(there)
    targets = {(folder / below / name).resolve() for below, names in named.items() for name in names}
    missing = targets - {(folder / name).resolve() for name in there}
    assert [reason for place, _, reason in found if not place] == ["no_picture"] * len(missing)


def test_the_plan_counts_pictures_that_no_row_names(tmp_path):
    folder = pictures(tmp_path / "a", "0.jpg", "1.jpg", "2.jpg", "._0.jpg", ".hidden.jpg")
    metadata(folder / "metadata.csv", [{"file_name": "0.jpg", "text": "words"}])
    chosen = recipe(tmp_path / "runs", folder, caption_col="text", caption_kind_col=None, group_col=None)
    dag = open_dag([Plan()], chosen)
    dag.execute(Selection(), lambda line: None)
    (source,) = dag.run.shards("plan")[0].facts["sources"]
    assert source["left_out"] == {"pictures_unnamed": 2, "strangers": 2}
