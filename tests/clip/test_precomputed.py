"""Vectors made elsewhere become the ordinary tables: rows stay with their rows, bad ones are counted, wrong ones one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.clip import precomputed
from corgi.clip.vectors import concatenated, tower_names
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.tables.schema import IMAGES, Reason, caption_embeddings, image_embeddings
from pipelines.full import stages

DIM, ROWS = 6, 40
VIT = {"name": "b32", "model": "ViT-B-32", "pretrained": "random"}


pytestmark = pytest.mark.usefixtures("in_process")


def clip_retrieval(folder: Path, dim: int = DIM, parts: int = 2) -> dict[str, np.ndarray]:
    """Write parts of rows whose caption says which they are; return image and text vectors by caption."""
    found: dict[str, np.ndarray] = {}
    for part in range(parts):
        generator = np.random.default_rng(part)
        for name in ("metadata", "img_emb", "text_emb"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        captions = [f"picture {part} {row}" for row in range(ROWS)]
        urls = [f"https://host-{row % 3}.example/{part}/{row}" for row in range(ROWS)]
        pq.write_table(
            pa.table({"url": urls, "caption": captions}), folder / f"metadata/metadata_{part}.parquet"
        )
        for name in ("img_emb", "text_emb"):
            array = generator.normal(size=(ROWS, dim)).astype(np.float16)
            np.save(folder / name / f"{name}_{part}.npy", array)
            found |= {f"{name} {caption}": row for caption, row in zip(captions, array, strict=True)}
    return found


def opened(root: Path, source: Path, towers: Sequence[dict[str, Any]] = (), **plan: Any) -> Dag:
    sections = {
        "plan": {"input": "elsewhere.csv", "number_sample_per_shard": 20, **plan},
        "embed": {"input": str(source), "towers": list(towers)},
        "shift": {"num_clusters": 2},
    }
    recipe = Recipe.model_validate({"name": "tiny", "root": str(root), **sections})
    return open_dag(stages(recipe), recipe)


def embed(built: Dag) -> list[Any]:
    built.execute(Selection(only="embed"), lambda line: None)
    return built.run.shards("embed")


def rows_of(built: Dag) -> tuple[pa.Table, pa.Table, pa.Table]:
    tables = []
    for stage, name in (
        ("embed", "image_embeddings"),
        ("embed", "caption_embeddings"),
        ("download", "captions"),
    ):
        tables.append(pa.concat_tables([built.store.read(m, name) for m in built.run.shards(stage)]))
    return tables[0], tables[1], tables[2]


def refused(built: Dag) -> str:
    with pytest.raises(InputError) as found:
        embed(built)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_clip_retrieval_becomes_the_ordinary_tables(tmp_path: Path) -> None:
    written = clip_retrieval(tmp_path / "laion")
    built = opened(tmp_path / "runs", tmp_path / "laion")
    assert [m.rows.rejected for m in embed(built)] == [{}] * 4
    images, captions, words = rows_of(built)
    assert images.schema.equals(image_embeddings({"clip": DIM}))
    assert captions.schema.equals(caption_embeddings({"clip": DIM}))
    assert images.num_rows == captions.num_rows == 2 * ROWS
    assert set(images["split"].to_pylist()) == {"train", "val", "test"}
    caption_of = dict(zip(words["uid"].to_pylist(), words["caption"].to_pylist(), strict=True))
    pictures = concatenated(images, "image", ["clip"])
    spoken = dict(zip(captions["uid"].to_pylist(), concatenated(captions, "text", ["clip"]), strict=True))
    for row, uid in enumerate(images["uid"].to_pylist()):
        for kind, unit in (("img_emb", pictures[row]), ("text_emb", spoken[uid])):
            expected = written[f"{kind} {caption_of[uid]}"].astype(np.float32)
            np.testing.assert_allclose(unit, expected / np.linalg.norm(expected), atol=2e-3)
        assert images["similarity"][row].as_py() == pytest.approx(
            float(pictures[row] @ spoken[uid]), abs=2e-3
        )
    (shard, *_) = built.run.shards("download")
    table = built.store.read(shard, "images")
    assert table.schema.equals(IMAGES)
    assert table["image"].null_count == table.num_rows > 0
    assert built.execute(Selection(only="embed"), lambda line: None) == 0


def test_datacomp_keeps_uids_and_takes_the_towers_named(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    generator = np.random.default_rng(0)
    arrays = {
        f"{name}_{kind}": generator.normal(size=(ROWS, 512))
        for name in ("b32", "l14")
        for kind in ("img", "txt")
    }
    np.savez(folder / "abc.npz", **{name: array.astype(np.float16) for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]
    uids = [f"{row:032x}" for row in range(ROWS)]
    columns = {
        "uid": uids,
        "url": [f"https://a.example/{row}" for row in range(ROWS)],
        "text": ["words"] * ROWS,
    }
    pq.write_table(pa.table(columns), folder / "abc.parquet")
    built = opened(tmp_path / "runs", folder, [VIT], uid_col="uid", caption_col="text")
    embed(built)
    images, captions, _ = rows_of(built)
    assert sorted(images["uid"].to_pylist()) == uids
    assert tower_names(images.schema) == ["b32"]
    unit = concatenated(images, "image", ["b32"])
    for row, uid in enumerate(images["uid"].to_pylist()):
        expected = arrays["b32_img"][int(uid, 16)]
        np.testing.assert_allclose(unit[row], expected / np.linalg.norm(expected), atol=2e-3)
    assert captions.num_rows == ROWS
    l14 = {"name": "l14", "model": "ViT-L-14", "pretrained": "random"}
    told = refused(opened(tmp_path / "other", folder, [l14], uid_col="uid", caption_col="text"))
    assert "have 512 dimensions, those of ViT-L-14 768" in told
    g14 = {"name": "g14", "model": "ViT-g-14", "pretrained": "random"}
    told = refused(opened(tmp_path / "other", folder, [g14], uid_col="uid", caption_col="text"))
    assert "no image vectors of tower 'g14'" in told
    assert "b32, l14" in told


def test_bad_vectors_are_counted_and_a_second_row_of_the_url_stands_in(tmp_path: Path) -> None:
    folder = tmp_path / "laion"
    clip_retrieval(folder)
    lists = [pq.read_table(folder / f"metadata/metadata_{part}.parquet") for part in (0, 1)]
    lists[1] = lists[1].set_column(
        0, "url", pa.concat_arrays([lists[0]["url"].chunk(0)[:1], lists[1]["url"].chunk(0)[1:]])
    )
    pq.write_table(lists[1], folder / "metadata/metadata_1.parquet")
    array = np.load(folder / "img_emb/img_emb_0.npy")
    array[0], array[1], array[2], array[3] = 0, np.nan, np.inf, 0
    np.save(folder / "img_emb/img_emb_0.npy", array)
    texts = np.load(folder / "text_emb/text_emb_0.npy")
    texts[7] = np.nan
    np.save(folder / "text_emb/text_emb_0.npy", texts)
    built = opened(tmp_path / "runs", folder)
    manifests = embed(built)
    assert sum(m.rows.rejected.get(Reason.BAD_VECTOR, 0) for m in manifests) == 3
    images, captions, _ = rows_of(built)
    assert images.num_rows == 2 * ROWS - 1 - 3
    # the shared URL keeps both captions, the three dropped pictures and the NaN text lose theirs
    assert captions.num_rows == 2 * ROWS - 3 - 1
    assert sum(m.facts["captions_dropped"] for m in manifests) == 4
    assert np.isfinite(concatenated(images, "image", ["clip"])).all()
    assert np.isfinite(np.asarray(images["similarity"].drop_null())).all()


def test_vectors_of_several_widths_are_one_line(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "laion")
    np.save(tmp_path / "laion/img_emb/img_emb_1.npy", np.ones((ROWS, DIM + 1), np.float16))
    told = refused(opened(tmp_path / "runs", tmp_path / "laion"))
    assert "clip/image has 7 dimensions" in told
    assert "has 6;" in told


def test_pictures_and_vectors_together_are_one_line(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "laion")
    (tmp_path / "pictures").mkdir()
    recipe = Recipe.model_validate(
        {
            "name": "t",
            "root": str(tmp_path),
            "embed": {"input": [str(tmp_path / "laion"), str(tmp_path / "pictures")]},
        }
    )
    with pytest.raises(InputError, match="contains no vectors, but other inputs do"):
        precomputed.given_files(recipe.embed)


def test_other_vectors_beside_the_same_list_are_another_key(tmp_path: Path) -> None:
    clip_retrieval(tmp_path / "laion")
    built = opened(tmp_path / "runs", tmp_path / "laion")
    before = [m.key for m in embed(built)]
    np.save(tmp_path / "laion/img_emb/img_emb_0.npy", np.ones((ROWS, DIM), np.float16))
    again = opened(tmp_path / "runs", tmp_path / "laion")
    assert not {m.key for m in embed(again)} & set(before)
