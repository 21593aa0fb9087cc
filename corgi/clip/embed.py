"""The embed stage: one vector per CLIP tower for every stored picture and every caption, and their cosine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corgi.clip.pictures import pixel_batches
from corgi.clip.references import model_shard, tower_refs
from corgi.clip.towers import Tower, load_tower
from corgi.clip.vectors import column, concatenated, is_good
from corgi.flow.cluster import connect
from corgi.flow.dag import Context
from corgi.flow.shards import Pool, make_shards
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Reason, caption_embeddings, image_embeddings
from corgi.tables.store import ShardTask, Store


def run(context: Context) -> list[ShardTask]:
    """Commit `image_embeddings` and `caption_embeddings` of every download shard, one actor call a shard."""
    tasks = context.partitioned()
    pending = context.pending(tasks)
    if not pending:
        return tasks
    settings: EmbedSettings = context.recipe.embed
    trained = model_shard(context.shards("tower")) if "tower" in context.inputs else None
    refs = tower_refs(context.store, settings, trained)
    connect(context.recipe)
    make_shards(
        "corgi.clip.embed:EmbedShards",
        {"towers": [ref.model_dump() for ref in refs], "precision": settings.precision},
        pending,
        Pool(settings.num_actors, settings.cpus_per_actor, settings.gpus_per_actor),
        "embed",
    )
    return tasks


@dataclass(frozen=True)
class Vectors:
    """The unit vectors of some rows, by tower, with the norms they had."""

    unit: dict[str, Float[np.ndarray, "n dim"]]
    norm: dict[str, Float[np.ndarray, "n"]]

    def is_good(self) -> Bool[np.ndarray, "n"]:
        """Return which rows every tower gave a finite, non-zero vector."""
        return np.logical_and.reduce([is_good(self.unit[tower], self.norm[tower]) for tower in self.unit])

    def columns(self, kind: str, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the table columns of the chosen rows."""
        found: dict[str, pa.Array] = {}
        for tower, unit in self.unit.items():
            found[f"{tower}/{kind}"] = column(unit[rows])
            found[f"{tower}/{kind}_norm"] = pa.array(self.norm[tower][rows], pa.float32())
        return found

    @property
    def dims(self) -> dict[str, int]:
        """Return each tower's width."""
        return {tower: unit.shape[1] for tower, unit in self.unit.items()}


class EmbedShards:
    """Ray Data actor: its towers are loaded once, each call embeds and commits one shard.

    Batches start at the shard's first row, so that a shard made again has the same bits.
    """

    def __init__(self, towers: Sequence[dict[str, Any]], precision: str = "fp32") -> None:
        """Load the towers."""
        refs = [TowerRef.model_validate(values) for values in towers]
        self.towers = [load_tower(ref, precision) for ref in refs]
        self.facts = {
            tower.name: {"model": ref.model, "dim": tower.dim, "image_size": tower.image_size}
            for ref, tower in zip(refs, self.towers, strict=True)
        }

    def make(self, task: ShardTask) -> ShardManifest:
        """Embed one shard's pictures and captions; rows with a NaN or zero vector are dropped and counted."""
        store = Store(task.root)
        settings = EmbedSettings.model_validate(task.settings["embed"])
        download = store.read_shard(task.inputs["download"][0])
        images = store.read(download, "images", ["uid", "split", "image"])
        captions = store.read(download, "captions", ["uid", "ordinal", "caption", "kind"])
        start = time.perf_counter()
        pictures = embed_pictures(self.towers, images["image"].to_pylist(), settings)
        middle = time.perf_counter()
        texts = embed_captions(self.towers, captions["caption"].to_pylist(), settings.batch_size)
        seconds = {"images_s": middle - start, "captions_s": time.perf_counter() - middle}
        image_table, caption_table = _tables(images, captions, pictures, texts)
        kept = image_table.num_rows
        rejected = {Reason.BAD_VECTOR: images.num_rows - kept} if kept < images.num_rows else {}
        facts = {
            "towers": self.facts,
            "captions": caption_table.num_rows,
            "captions_dropped": captions.num_rows - caption_table.num_rows,
        }
        with store.attempt(task) as attempt:
            attempt.write_table("image_embeddings", image_table)
            attempt.write_table("caption_embeddings", caption_table)
            return attempt.commit(
                RowCounts(rows_in=images.num_rows, kept=kept, rejected=rejected), facts, seconds
            )


def embed_pictures(towers: Sequence[Tower], encoded: Sequence[bytes], settings: EmbedSettings) -> Vectors:
    """Return the vectors of stored pictures, decoded by threads beside the device."""
    batches: dict[str, list[tuple[Tensor, Tensor]]] = {tower.name: [] for tower in towers}
    transforms = [tower.preprocess for tower in towers]
    for stacks in pixel_batches(encoded, transforms, settings.batch_size, settings.decode_threads):
        for tower, pixels in zip(towers, stacks, strict=True):
            batches[tower.name].append(tower.pixels(pixels))
    return _vectors(towers, batches)


def embed_captions(towers: Sequence[Tower], captions: Sequence[str], batch_size: int) -> Vectors:
    """Return the vectors of captions; a caption that many pictures share is computed once."""
    position: dict[str, int] = {}
    for caption in captions:
        position.setdefault(caption, len(position))
    distinct = list(position)
    found = _vectors(towers, {tower.name: _batched(tower.texts, distinct, batch_size) for tower in towers})
    rows = np.array([position[caption] for caption in captions], np.int64)
    return Vectors(
        {name: unit[rows] for name, unit in found.unit.items()},
        {name: norm[rows] for name, norm in found.norm.items()},
    )


def similarities(
    images: pa.Table, captions: pa.Table, towers: Sequence[str]
) -> tuple[list[float | None], Float[np.ndarray, "captions"]]:
    """Return each picture's cosine to its best full caption (None without one) and each caption's to its picture.

    With several towers it is the cosine of the concatenated vectors, the mean of the towers' cosines.
    """
    row_of = {uid: row for row, uid in enumerate(images["uid"].to_pylist())}
    rows = np.array([row_of[uid] for uid in captions["uid"].to_pylist()], np.int64)
    pictures, texts = concatenated(images, "image", towers), concatenated(captions, "text", towers)
    cosine = np.einsum("nd,nd->n", pictures[rows], texts)
    best: list[float | None] = [None] * images.num_rows
    for row, kind, value in zip(rows.tolist(), captions["kind"].to_pylist(), cosine.tolist(), strict=True):
        known = best[row]
        if kind == "full" and (known is None or value > known):
            best[row] = value
    return best, cosine


def _tables(
    images: pa.Table, captions: pa.Table, pictures: Vectors, texts: Vectors
) -> tuple[pa.Table, pa.Table]:
    """Return both tables without the rows of bad vectors; a caption goes with its picture."""
    good = np.flatnonzero(pictures.is_good())
    image_table = _table(images.select(["uid", "split"]).take(good), pictures.columns("image", good))
    known = set(image_table["uid"].to_pylist())
    has_picture = np.array([uid in known for uid in captions["uid"].to_pylist()], bool)
    kept = np.flatnonzero(texts.is_good() & has_picture)
    caption_table = _table(
        captions.select(["uid", "ordinal", "kind"]).take(kept), texts.columns("text", kept)
    )
    best, cosine = similarities(image_table, caption_table, list(pictures.dims))
    image_table = image_table.append_column("similarity", pa.array(best, pa.float32()))
    caption_table = caption_table.append_column("similarity", pa.array(cosine, pa.float32()))
    return image_table.cast(image_embeddings(pictures.dims)), caption_table.cast(
        caption_embeddings(texts.dims)
    )


def _table(named: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        named = named.append_column(name, values)
    return named


def _batched(
    encode: Callable[[Sequence[str]], tuple[Tensor, Tensor]], rows: Sequence[str], batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    return [encode(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def _vectors(towers: Sequence[Tower], batches: dict[str, list[tuple[Tensor, Tensor]]]) -> Vectors:
    unit, norm = {}, {}
    for tower in towers:
        made = batches[tower.name] or [(torch.empty(0, tower.dim), torch.empty(0))]
        unit[tower.name] = np.concatenate([part.numpy() for part, _ in made])
        norm[tower.name] = np.concatenate([part.numpy() for _, part in made])
    return Vectors(unit, norm)
