"""The embed stage on drawn pictures, in this process, with untrained and with poisoned towers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from corgi.clip import embed
from corgi.clip.embed import EmbedShards
from corgi.clip.vectors import concatenated
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import Reason, caption_embeddings, image_embeddings
from corgi.tables.store import Store
from pipelines.full import stages
from tests.support.drawn import NUM_SHARDS, caption, dag, encoded, picture, run

TINY = {"name": "tiny", "model": "tiny", "pretrained": "random"}


class Coloured:
    """A stand-in tower: a picture's mean colour, a caption's letters; `poison` makes some vectors bad."""

    name, dim, image_size = "tiny", 3, 8
    crop, device = "8 x 8", torch.device("cpu")

    def preprocess(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture.resize((8, 8)), np.float32).transpose(2, 0, 1) / 255)

    def pixels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = pixels.mean(dim=(2, 3)) - 0.7
        raw[0] = torch.nan
        raw[1] = 0.0
        norm = raw.norm(dim=1)
        return raw / norm.clamp(min=1e-30)[:, None], norm

    def texts(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        raw = torch.tensor([[len(c), c.count("e") + 1.0, c.count("d")] for c in captions])
        raw[[c == "disc" for c in captions]] = torch.nan
        norm = raw.norm(dim=1)
        return raw / norm[:, None], norm


@pytest.mark.parametrize(("sides", "crops"), [((8, 8, 8), 1), ((8, 16, 8), 2)])
def test_towers_with_equal_preprocessing_share_one_crop(sides: tuple[int, ...], crops: int) -> None:
    cropped: list[int] = []

    class Mean:
        device = torch.device("cpu")

        def __init__(self, name: str, side: int) -> None:
            self.name, self.side, self.crop = name, side, f"{side} px"

        def preprocess(self, picture: Image.Image) -> torch.Tensor:
            cropped.append(self.side)
            return pil_to_tensor(picture.resize((self.side, self.side)))

        def pixels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert pixels.shape[2] == self.side
            return pixels.float().mean((2, 3)), torch.ones(len(pixels))

    data = [encoded(picture(number)) for number in range(5)]
    towers: list[Any] = [Mean(str(number), side) for number, side in enumerate(sides)]
    found = embed.embed_pictures(towers, data, EmbedSettings(batch_size=2))
    assert len(cropped) == 5 * crops
    for tower in towers:
        alone = embed.embed_pictures([tower], data, EmbedSettings(batch_size=2))
        np.testing.assert_array_equal(found.unit[tower.name], alone.unit[tower.name])


def test_decode_threads_follow_the_reserved_cpus_unless_they_are_set() -> None:
    given = [{}, {"cpus_per_actor": 8}, {"cpus_per_actor": 0.5}, {"cpus_per_actor": 8, "decode_threads": 3}]
    assert [embed.num_threads(EmbedSettings.model_validate(values)) for values in given] == [2, 8, 2, 3]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.json"
    path.write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
        ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    return str(path)


def committed(built: Dag, stage: str = "embed") -> list[ShardManifest]:
    return built.run.shards(stage)


def read(built: Dag, name: str) -> list[pa.Table]:
    return [built.store.read(shard, name) for shard in committed(built)]


@pytest.mark.flow
def test_embeds_every_row_and_resumes_to_the_same_bits(in_process: None, tmp_path: Path, config: str) -> None:
    towers = [{**TINY, "config": config}, {**TINY, "name": "other", "model": "other", "config": config}]
    built = dag(tmp_path / "runs", embed={"towers": towers, "batch_size": 8})
    run(built, "embed")
    images, captions = read(built, "image_embeddings"), read(built, "caption_embeddings")
    dims = {"tiny": 16, "other": 16}
    for shard in range(NUM_SHARDS):
        assert images[shard].schema.equals(image_embeddings(dims))
        assert captions[shard].schema.equals(caption_embeddings(dims))
        assert images[shard].num_rows == 35
        expected = concatenated(images[shard], "image", ["tiny", "other"])
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
        assert (np.asarray(images[shard]["tiny/image_norm"]) > 0).all()
    _check_similarity(images[0], captions[0])
    before = [shard.digest for shard in committed(built)]
    lost = built.store.root / Path(committed(built)[1].path)
    lost.unlink()
    for closed in (built.store.root / "embed" / "closed").glob("*/manifest-*.json"):
        closed.unlink()
    run(built, "embed")
    assert [shard.digest for shard in committed(built)] == before
    assert run(built, "embed") == 0


def _check_similarity(images: pa.Table, captions: pa.Table) -> None:
    """A picture's similarity is its best full caption's, null without one, never a coarse one's."""
    by_uid: dict[str, list[float]] = {}
    for row in captions.to_pylist():
        if row["kind"] == "full":
            by_uid.setdefault(row["uid"], []).append(row["similarity"])
    for row in images.to_pylist():
        found = by_uid.get(row["uid"])
        assert row["similarity"] == (max(found) if found else None)
    assert sum(row is None for row in images["similarity"].to_pylist()) == 5
    pictures, texts = (
        concatenated(table, kind, ["tiny", "other"])
        for table, kind in ((images, "image"), (captions, "text"))
    )
    row = images["uid"].to_pylist().index(captions["uid"][0].as_py())
    assert captions["similarity"][0].as_py() == pytest.approx(float(pictures[row] @ texts[0]), abs=1e-5)


def _poisoned(built: Dag, monkeypatch: pytest.MonkeyPatch) -> tuple[ShardManifest, Store]:
    monkeypatch.setattr(embed, "load_tower", lambda ref, precision: Coloured())
    run(built, "download")
    context = built.context(built.stages[1], {"download": built.run.stages()["download"]})
    task = context.partitioned()[0]
    maker = EmbedShards([TowerRef.model_validate(TINY).model_dump()])
    return maker.make(task), built.store


def test_bad_vectors_are_dropped_with_their_captions_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = dag(tmp_path / "runs", embed={"towers": [TINY], "batch_size": 35})
    manifest, store = _poisoned(built, monkeypatch)
    images, captions = store.read(manifest, "image_embeddings"), store.read(manifest, "caption_embeddings")
    assert manifest.rows.rejected == {Reason.BAD_VECTOR: 2}
    assert manifest.rows.kept == images.num_rows == 33
    assert not {f"{0:032x}", f"{1:032x}"} & set(images["uid"].to_pylist() + captions["uid"].to_pylist())
    assert np.isfinite(concatenated(images, "image", ["tiny"])).all()
    assert manifest.facts["captions_dropped"] == 30 * 2 - captions.num_rows
    coarse_discs = sum(number % 4 == 1 and number % 7 != 6 for number in range(2, 35))
    assert captions.num_rows == (30 - 2) * 2 - coarse_discs


def test_a_shared_caption_is_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    tower = Coloured()
    monkeypatch.setattr(
        tower,
        "texts",
        lambda captions: (asked.extend(captions), Coloured.texts(tower, captions))[1],
        raising=False,
    )
    captions = [caption(number) for number in (0, 1, 24, 0, 1)]
    found = embed.embed_captions([tower], captions, 2)  # pyright: ignore[reportArgumentType]
    assert asked == [caption(0), caption(1)]
    np.testing.assert_array_equal(found.unit["tiny"][[0, 1]], found.unit["tiny"][[3, 4]])


@pytest.mark.flow
def test_a_folder_of_pictures_is_planned_read_and_embedded(
    in_process: None, tmp_path: Path, config: str
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        picture(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption(number))
    sections = {
        "name": "folder",
        "root": str(tmp_path / "runs"),
        "plan": {"input": "a-list-that-is-not-there.csv"},
        "embed": {"input": str(folder), "towers": [{**TINY, "config": config}]},
    }
    recipe = Recipe.model_validate(sections)
    built = open_dag(stages(recipe), recipe)
    assert built.execute(Selection(only="embed"), lambda line: None) == 3
    assert set(built.run.stages()) == {"plan", "download", "embed"}
    (images,) = read(built, "image_embeddings")
    assert images.schema.equals(image_embeddings({"tiny": 16}))
    (captions,) = read(built, "caption_embeddings")
    assert images.num_rows == captions.num_rows == 12
    assert built.execute(Selection(only="embed"), lambda line: None) == 0
