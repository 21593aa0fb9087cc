"""Vectors made elsewhere: rows stay with their rows, and a file that is not what it says runs nothing."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.settings.errors import InputError
from corgi.sources.embeddings import vector_files, vector_tables
from corgi.sources.identity import canonical_url
from corgi.tables.places import uid
from corgi.tables.schema import given_vectors

DIM = 6


def clip_retrieval(folder: Path, num_rows: int = 5, parts: int = 2) -> dict[str, np.ndarray]:
    found = {}
    for part in range(parts):
        generator = np.random.default_rng(part)
        urls = [f"HTTP://a.example:80/{part}/{row}" for row in range(num_rows)]
        for name in ("metadata", "img_emb", "text_emb"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        metadata = pa.table({"url": urls, "caption": [f"words {row}" for row in range(num_rows)]})
        pq.write_table(metadata, folder / "metadata" / f"metadata_{part}.parquet")
        for name in ("img_emb", "text_emb"):
            array = generator.normal(size=(num_rows, DIM)).astype(np.float16)
            np.save(folder / name / f"{name}_{part}.npy", array)
            found |= {f"{name} {url}": row for url, row in zip(urls, array, strict=True)}
    return found


def datacomp(folder: Path, num_rows: int = 4) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        key: np.random.default_rng(1).normal(size=(num_rows, DIM))
        for key in ("b32_img", "b32_txt", "l14_img")
    }
    halves: dict[str, Any] = {key: array.astype(np.float16) for key, array in arrays.items()}
    np.savez(folder / "abc.npz", **halves)
    table = {
        "uid": [f"{row:032x}" for row in range(num_rows)],
        "url": [f"http://a/{row}" for row in range(num_rows)],
    }
    pq.write_table(pa.table({**table, "text": ["words"] * num_rows}), folder / "abc.parquet")
    return arrays["b32_img"]


def rows_of(folder: Path) -> list[dict]:
    return [
        row
        for file in vector_files(folder, "b32")
        for table in vector_tables(file)
        for row in table.to_pylist()
    ]


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as found:
        rows_of(folder)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_clip_retrieval_rows_stay_with_their_rows(tmp_path):
    arrays = clip_retrieval(tmp_path)
    rows = rows_of(tmp_path)
    assert len(rows) == 10
    for row in rows:
        (original,) = [
            url for url in arrays if url.startswith("img") and canonical_url(url[8:]) == row["url"]
        ]
        array = arrays[original].astype(np.float32)
        assert row["uid"] == uid(row["url"])
        assert row["b32/image_norm"] == pytest.approx(np.linalg.norm(array), rel=1e-6)
        np.testing.assert_allclose(row["b32/image"], array / np.linalg.norm(array), atol=1e-3)
        assert np.linalg.norm(row["b32/text"]) == pytest.approx(1, abs=2e-3)


def test_datacomp_keeps_its_uids_and_names_its_towers(tmp_path):
    array = datacomp(tmp_path)
    (file,) = vector_files(tmp_path)
    (table,) = vector_tables(file)
    assert table.schema.equals(given_vectors({"b32/image": DIM, "b32/text": DIM, "l14/image": DIM}))
    assert table["uid"].to_pylist() == [f"{row:032x}" for row in range(4)]
    assert set(table["caption"].to_pylist()) == {"words"}
    unit = np.array(table["b32/image"].to_pylist())
    np.testing.assert_allclose(unit, array / np.linalg.norm(array, axis=1, keepdims=True), atol=2e-3)


def test_a_zero_vector_has_norm_zero_and_no_nan(tmp_path):
    clip_retrieval(tmp_path, parts=1)
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.zeros((5, DIM), np.float16))
    assert {row["b32/image_norm"] for row in rows_of(tmp_path)} == {0.0}
    assert all(np.isfinite(row["b32/image"]).all() for row in rows_of(tmp_path))


def test_pickled_arrays_are_never_loaded(tmp_path):
    class Canary:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "fired"),))

    clip_retrieval(tmp_path / "a", parts=1)
    np.save(tmp_path / "a" / "img_emb" / "img_emb_0.npy", np.array([[Canary()] * DIM] * 5), allow_pickle=True)
    refused(tmp_path / "a")
    (tmp_path / "a" / "img_emb" / "img_emb_0.npy").write_bytes(pickle.dumps(Canary()))
    refused(tmp_path / "a")
    datacomp(tmp_path / "b")
    np.savez(tmp_path / "b" / "abc.npz", b32_img=np.array([[Canary()] * DIM] * 4))
    refused(tmp_path / "b")
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("shape", [(4, DIM), (6, DIM), (5,), (5, 100_000), (5, DIM, 1)])
def test_another_number_of_rows_is_one_line(tmp_path, shape):
    clip_retrieval(tmp_path, parts=1)
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.zeros(shape, np.float16))
    assert "its Parquet file" in refused(tmp_path)


@pytest.mark.parametrize("name", ["img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"])
def test_a_damaged_file_is_one_line(tmp_path, name):
    clip_retrieval(tmp_path, parts=1)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    refused(tmp_path)


def test_a_damaged_npz_is_one_line(tmp_path):
    datacomp(tmp_path)
    data = (tmp_path / "abc.npz").read_bytes()
    (tmp_path / "abc.npz").write_bytes(data[: len(data) // 2])
    refused(tmp_path)


def test_a_folder_without_vectors_is_one_line(tmp_path):
    assert "has no vectors" in refused(tmp_path)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("metadata/metadata_1.parquet", "img_emb_1.npy has no metadata_1.parquet"),
        ("img_emb/img_emb_1.npy", "metadata_1.parquet has no img_emb_1.npy"),
    ],
)
def test_a_list_without_vectors_and_vectors_without_a_list_are_one_line(tmp_path, gone, told):
    clip_retrieval(tmp_path)
    (tmp_path / gone).unlink()
    assert told in refused(tmp_path)


@pytest.mark.parametrize(
    ("gone", "told"), [("b.npz", "b.parquet has no b.npz"), ("b.parquet", "b.npz has no")]
)
def test_datacomps_files_go_in_pairs(tmp_path, gone, told):
    datacomp(tmp_path)
    for ending in ("npz", "parquet"):
        (tmp_path / f"b.{ending}").write_bytes((tmp_path / f"abc.{ending}").read_bytes())
    (tmp_path / gone).unlink()
    assert told in refused(tmp_path)


def test_text_vectors_may_be_missing_and_a_stray_one_is_one_line(tmp_path):
    clip_retrieval(tmp_path)
    (tmp_path / "text_emb" / "text_emb_1.npy").unlink()
    assert [sorted(file.arrays) for file in vector_files(tmp_path, "b32")] == [
        ["b32/image", "b32/text"],
        ["b32/image"],
    ]
    np.save(tmp_path / "text_emb" / "text_emb_7.npy", np.zeros((5, DIM), np.float16))
    assert "text_emb_7.npy has no metadata_7.parquet" in refused(tmp_path)


def test_another_list_beside_the_vectors_is_one_line(tmp_path):
    """The plan would read it, and no vectors belong to its rows."""
    clip_retrieval(tmp_path)
    (tmp_path / "metadata" / "more.csv").write_text("url\nhttp://a.example/x\n")
    assert "more.csv: vectors must be listed in Parquet" in refused(tmp_path)
