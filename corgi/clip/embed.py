"""The embed stage: one vector per CLIP tower for every stored picture and every caption, their cosine, and other scores."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from corgi.clip.batch_size import measured_batch_size
from corgi.clip.earlier import TOKENS, EarlierVectors, KnownVectors, completed, stages_of, with_known_tokens
from corgi.clip.embedding_tables import embedded_tables, scored
from corgi.clip.frozen_features import FrozenFeatures, features_of
from corgi.clip.pictures import pixel_batches
from corgi.clip.references import absolute, model_shard, tower_refs
from corgi.clip.scores import checked_heads
from corgi.clip.tokens import TokenEncoder, token_column, token_encoder
from corgi.clip.towers import Tower, load_tower
from corgi.clip.vectors import Vectors
from corgi.clip.waits import Waits
from corgi.flow.arriving import make_arriving
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.executor import call
from corgi.flow.shards import Pool, make_shards
from corgi.flow.stage import Arriving
from corgi.settings.clip import EmbedSettings, TokenRef, TowerRef
from corgi.tables.attempt import Attempt
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.row_groups import cut
from corgi.tables.schema import Reason, caption_tokens
from corgi.tables.store import ShardTask, Store


def run(context: Context) -> list[ShardTask]:
    """Commit `image_embeddings` and `caption_embeddings` of every download shard, one actor call per shard."""
    tasks = context.partitioned()
    pending = context.pending(tasks)
    if not pending:
        return tasks
    arguments, pool, sized = _prepared(context)
    make_shards(EmbedShards, arguments, sized(pending), pool, "embed")
    return tasks


def follow(context: Context, arriving: Arriving) -> None:
    """Embed shards as they are downloaded, until no more can arrive."""
    arguments, pool, sized = _prepared(context)

    def ready() -> tuple[list[ShardTask], bool]:
        tasks, more = arriving()
        return sized(tasks), more

    make_arriving(EmbedShards, arguments, ready, pool, "embed")


def _prepared(
    context: Context,
) -> tuple[dict[str, object], Pool, Callable[[list[ShardTask]], list[ShardTask]]]:
    """Return the arguments of the embedding actors, their pool, and a function that sets the resolved batch size in tasks."""
    settings: EmbedSettings = context.recipe.embed
    trained = model_shard(context.listed("tower")) if "tower" in context.inputs else None
    refs = [ref.model_dump() for ref in tower_refs(context.store, settings, trained)]
    connect(context.recipe)
    pool = Pool(
        settings.num_actors,
        settings.cpus_per_actor,
        settings.gpus_per_actor,
        settings.memory_per_actor,
        settings.shards_per_actor,
    )
    arguments = {
        "towers": refs,
        "settings": absolute(settings).model_dump(mode="json"),
        "earlier": [stage.path for stage in stages_of(context)],
        "features": features_of(context),
    }
    if settings.batch_size is not None:
        return arguments, pool, lambda tasks: tasks
    batch_size = _measured(context.store.location, refs, settings, pool)
    return arguments, pool, lambda tasks: with_batch_size(tasks, batch_size)


def with_batch_size(tasks: Sequence[ShardTask], batch_size: int) -> list[ShardTask]:
    """Return the tasks with the measured batch size in their resolved settings; their keys are still computed from the recipe."""
    return [
        dataclasses.replace(
            task, settings={**task.settings, "embed": {**task.settings["embed"], "batch_size": batch_size}}
        )
        for task in tasks
    ]


def _measured(root: str, towers: Sequence[Mapping[str, object]], settings: EmbedSettings, pool: Pool) -> int:
    """Return the batch size for a worker's device, which may be of a different kind than the driver's."""
    return call(measured_batch_size, pool.cpus, pool.gpus, root, towers, settings.precision)


class EmbedShards:
    """Ray Data actor: its towers are loaded once; each call embeds and commits one shard.

    Batches start at the shard's first row, so that recomputing a shard gives the same bits.
    """

    def __init__(
        self,
        towers: Sequence[Mapping[str, object]],
        settings: Mapping[str, object] | None = None,
        earlier: Sequence[str] = (),
        features: Mapping[str, object] | None = None,
    ) -> None:
        """Load towers, heads and text encoders.

        Args:
            towers: references to the recipe's towers.
            settings: those of the embed section.
            earlier: paths of the closed stages whose vectors are reused.
            features: arguments of `FrozenFeatures`; None if the tower stage has no usable features.

        Raises:
            InputError: a tower, head or text encoder cannot be loaded, or a head does not fit its tower.

        """
        chosen = EmbedSettings.model_validate(settings or {})
        refs = [TowerRef.model_validate(values) for values in towers]
        self.towers = [load_tower(ref, chosen.precision) for ref in refs]
        self.heads = checked_heads(chosen.heads, {tower.name: tower.dim for tower in self.towers})
        self.encoders = {ref: token_encoder(ref, self.towers) for ref in chosen.tokens}
        self.waits, self.cpus = Waits(), chosen.cpus_per_actor
        self.facts = {
            tower.name: {"model": ref.model, "dim": tower.dim, "image_size": tower.image_size}
            for ref, tower in zip(refs, self.towers, strict=True)
        }
        self._earlier_stages = earlier
        self._earlier: EarlierVectors | None = None
        self._features = None if features is None else FrozenFeatures.of_tower(self.towers[0], features)

    def make(self, task: ShardTask) -> ShardManifest:
        """Embed one shard's pictures and captions; rows with a NaN or zero vector are dropped and counted.

        Another thread may read or write its shard while this thread's shard is on the device.
        """
        store = Store(task.root)
        settings = EmbedSettings.model_validate(task.settings["embed"])
        images, captions = stored_rows(store, task)
        known, frozen = self._known(store, images, captions), KnownVectors()
        if self._features is not None:
            frozen = self._features.known(store, task.inputs["download"][0], captions)
        with self.waits.turn():
            pictures, texts, seconds = self._vectors(images, captions, (known, frozen), settings)
        tables = embedded_tables(images, captions, pictures, texts)
        tables["image_embeddings"] = scored(tables["image_embeddings"], self.heads)
        if self.encoders:
            kept_captions = tables["caption_embeddings"]
            with self.waits.turn():
                tables[TOKENS] = self._token_table(kept_captions, captions, known.tokens, settings)
        kept, captions_kept = tables["image_embeddings"].num_rows, tables["caption_embeddings"].num_rows
        rejected = {Reason.BAD_VECTOR: images.num_rows - kept} if kept < images.num_rows else {}
        facts = {
            "towers": self.facts,
            "batch_size": settings.batch_size,
            "captions": captions_kept,
            "captions_dropped": captions.num_rows - captions_kept,
            **known.facts,
        }
        rows = RowCounts(rows_in=images.num_rows, kept=kept, rejected=rejected)
        with store.attempt(task) as attempt:
            return attempt.commit(rows, facts | written(attempt, tables), seconds)

    def told(self) -> str:
        """Return what share of the time the GPU waits and what to change; empty on a CPU, or if the GPU hardly waits."""
        return self.waits.told(self.cpus) if self.towers[0].device.type == "cuda" else ""

    def _known(self, store: Store, images: pa.Table, captions: pa.Table) -> KnownVectors:
        """Return what earlier stages have of a shard's images and captions."""
        if not self._earlier_stages:
            return KnownVectors()
        if self._earlier is None:
            self._earlier = EarlierVectors(store, self._earlier_stages, [ref.name for ref in self.encoders])
        return self._earlier.of(images, captions)

    def _vectors(
        self, images: pa.Table, captions: pa.Table, known: Sequence[KnownVectors], settings: EmbedSettings
    ) -> tuple[Vectors, Vectors, dict[str, float]]:
        """Return the vectors of all images and captions and the seconds taken; known vectors are not computed; of several, the first is used."""
        encoded, texts = images["image"].to_pylist(), captions["caption"].to_pylist()

        def pictures(rows: list[int]) -> Vectors:
            return embed_pictures(self.towers, [encoded[row] for row in rows], settings, self.waits)

        def spoken(rows: list[int]) -> Vectors:
            return embed_captions(self.towers, [texts[row] for row in rows], settings.batch_size or 1)

        start = time.perf_counter()
        of_images = completed(
            images["uid"].to_pylist(), [one.images for one in known], ("uid", "image"), pictures
        )
        middle = time.perf_counter()
        of_captions = completed(texts, [one.captions for one in known], ("caption", "text"), spoken)
        seconds = {"images_s": middle - start, "captions_s": time.perf_counter() - middle}
        return of_images, of_captions, seconds

    def _token_table(
        self, kept: pa.Table, captions: pa.Table, known: pa.Table | None, settings: EmbedSettings
    ) -> pa.Table:
        """Return the token states of the captions that were embedded; known ones are not computed."""
        named = kept.select(["uid", "ordinal"])
        ordered = named.join(captions.select(["uid", "ordinal", "caption"]), ["uid", "ordinal"])
        texts = ordered.sort_by([("uid", "ascending"), ("ordinal", "ascending")])["caption"].to_pylist()
        widths: dict[str, int] = {}
        for ref, encoder in self.encoders.items():

            def compute(
                missing: list[str], encoder: TokenEncoder = encoder, ref: TokenRef = ref
            ) -> tuple[pa.ListArray, int]:
                return token_column(encoder, missing, ref.max_tokens, settings.batch_size or 1)

            states, widths[ref.name] = with_known_tokens(texts, known, f"{ref.name}/tokens", compute)
            named = named.append_column(f"{ref.name}/tokens", states)
        return named.cast(caption_tokens(widths))


def written(attempt: Attempt, tables: Mapping[str, pa.Table]) -> dict[str, object]:
    """Write the tables of a shard; return the facts that readers of the tables need.

    Token states have a hundred times the bytes of vectors, so a training reads them by row group.
    """
    facts: dict[str, object] = {}
    for name, table in tables.items():
        if name == TOKENS:
            facts |= attempt.write_row_groups(name, table, cut(table.num_rows))
        else:
            attempt.write_table(name, table)
    return facts


def stored_rows(store: Store, task: ShardTask) -> tuple[pa.Table, pa.Table]:
    """Return (uid, url, sha256, split, image) and (uid, ordinal, caption, kind) of the shard that a task embeds, both sorted by uid.

    The stage called download may be any that commits `images` and `captions`: of a folder, of tars, or of an images table.
    """
    download = store.read_shard(task.inputs["download"][0])
    images = store.read(download, "images", ["uid", "url", "sha256", "split", "image"])
    return images, store.read(download, "captions", ["uid", "ordinal", "caption", "kind"])


def embed_pictures(
    towers: Sequence[Tower], encoded: Sequence[bytes], settings: EmbedSettings, waits: Waits | None = None
) -> Vectors:
    """Return the vectors of stored pictures, which threads decode while the device computes.

    Towers with equal preprocessing share one crop.
    """
    waits = waits or Waits()
    batches: dict[str, list[tuple[Tensor, Tensor]]] = {tower.name: [] for tower in towers}
    crops = {tower.crop: tower.preprocess for tower in towers}
    size, threads = settings.batch_size or 1, num_threads(settings)
    stacks = pixel_batches(
        encoded, list(crops.values()), size, threads, settings.prefetch_batches, waits.spent
    )
    for of_batch in waits.decoded(stacks):
        moved = [pixels.to(towers[0].device, non_blocking=True) for pixels in of_batch]
        pixels_of = dict(zip(crops, moved, strict=True))
        for tower in towers:
            batches[tower.name].append(tower.pixels(pixels_of[tower.crop]))
    return _vectors(towers, batches)


def num_threads(settings: EmbedSettings) -> int:
    """Return the number of decoding threads: the setting, else one per reserved CPU, at least two."""
    return settings.decode_threads or max(2, math.ceil(settings.cpus_per_actor))


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


def _batched(
    encode: Callable[[Sequence[str]], tuple[Tensor, Tensor]], rows: Sequence[str], batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    return [encode(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]


def _vectors(towers: Sequence[Tower], batches: dict[str, list[tuple[Tensor, Tensor]]]) -> Vectors:
    unit, norm = {}, {}
    for tower in towers:
        parts = batches[tower.name] or [(torch.empty(0, tower.dim), torch.empty(0))]
        unit[tower.name] = np.concatenate([vectors.numpy() for vectors, _ in parts])
        norm[tower.name] = np.concatenate([norms.numpy() for _, norms in parts])
    return Vectors(unit, norm)
