"""clip-retrieval's layout: row-aligned, half floats, unit norm, only kept pictures that have a caption."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from corgi.clip.export_embeddings import clip_retrieval
from corgi.settings.errors import InputError
from corgi.tables.run import Run
from tests.support.tables import commit_curate, some_pictures, tiny_run
from tests.support.waiting import PATIENCE_S

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path / "runs")


def test_rows_are_aligned_and_none_is_lost(run: Run, tmp_path: Path) -> None:
    total = clip_retrieval(run, tmp_path / "out")
    seen: list[str] = []
    for number in range(2):
        images = np.load(tmp_path / "out" / "img_emb" / f"img_emb_{number}.npy")
        texts = np.load(tmp_path / "out" / "text_emb" / f"text_emb_{number}.npy")
        rows = pq.read_table(tmp_path / "out" / "metadata" / f"metadata_{number}.parquet").to_pylist()
        assert images.dtype == texts.dtype == np.float16
        assert len(images) == len(texts) == len(rows)
        np.testing.assert_allclose(np.linalg.norm(images.astype(np.float32), axis=1), 1, atol=2e-3)
        embedded = run.store.read(run.shards("embed")[number], "image_embeddings")
        place = {uid: row for row, uid in enumerate(embedded["uid"].to_pylist())}
        column = next(name for name in embedded.column_names if name.endswith("/image"))
        for vector, row in zip(images, rows, strict=True):
            np.testing.assert_allclose(vector, embedded[column][place[row["uid"]]].as_py(), atol=2e-3)
        seen += [row["url"] for row in rows]
    pictures = {p.url: p for p in some_pictures() if p.reason is None}
    captioned = {url for url, p in pictures.items() if any(kind == "full" for _, kind in p.captions)}
    selection = [run.store.read(shard, "selection") for shard in run.shards("curate")]
    dropped = {row["uid"] for table in selection for row in table.to_pylist() if not row["keep"]}
    assert sorted(seen) == sorted(url for url in captioned if pictures[url].uid not in dropped)
    assert total == len(seen) > 0


def test_a_caption_that_nothing_may_learn_from_is_not_exported(tmp_path: Path) -> None:
    pictures = [picture for picture in some_pictures() if picture.reason is None]
    withheld = [picture.url for picture in pictures if picture.split == "train"][::2]
    run = tiny_run(tmp_path / "runs", pictures)
    commit_curate(run, pictures, {}, withheld=withheld)
    total = clip_retrieval(run, tmp_path / "out")
    rows = [
        row
        for n in range(2)
        for row in pq.read_table(tmp_path / f"out/metadata/metadata_{n}.parquet").to_pylist()
    ]
    assert {row["url"] for row in rows} == {picture.url for picture in pictures} - {*withheld}
    assert total == len(rows)


def test_a_folder_in_use_and_an_unknown_tower_are_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="has no tower b99"):
        clip_retrieval(run, tmp_path / "out", "b99")
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(InputError, match="not empty"):
        clip_retrieval(run, tmp_path / "out")


def test_the_script_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    script = [sys.executable, str(HOME / "pipelines" / "export_data.py"), str(run.folder)]
    done = subprocess.run(
        [*script, "--uids", str(tmp_path / "u.npy")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(np.load(tmp_path / 'u.npy'))} uids" in done.stdout
    missing = subprocess.run(
        [*script[:2], str(tmp_path / "none"), "--uids", "x"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert missing.returncode == 3
    assert len(missing.stderr.strip().splitlines()) == 1
