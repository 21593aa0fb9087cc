"""Training rows read from committed tables: kept pictures of one split, with vectors, captions or latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from corgi.tables.schema import Split
from corgi.tables.store import Store
from corgi.tables.vectors import concatenated, matrix, tower_names

MAX_CAPTIONS = 8
"""Captions of one kind a picture takes part with; more are left to the embeddings table."""


@dataclass(frozen=True)
class EmbeddedShards:
    """Where the embeddings and the selection of a run lie: shard manifests by path, shard by shard."""

    root: str
    embed: tuple[str, ...]
    curate: tuple[str, ...]

    def keep(self, unit: int, split: Split) -> Bool[np.ndarray, "rows"]:
        """Say which rows of a shard's image table are selected and in a split."""
        store = Store(self.root)
        images = store.read(store.read_shard(self.embed[unit]), "image_embeddings", ["uid", "split"])
        selection = store.read(store.read_shard(self.curate[unit]), "selection", ["uid", "keep"])
        if not images["uid"].equals(selection["uid"]):
            raise AssertionError(f"shard {unit}: embeddings and selection do not hold the same rows")
        return np.asarray(selection["keep"]) & (np.asarray(images["split"]) == split.value)

    def captioned(self, unit: int) -> Bool[np.ndarray, "rows"]:
        """Say of which rows of a shard's image table the captions may be learnt from; the selection says no for some."""
        store = Store(self.root)
        selection = store.read(store.read_shard(self.curate[unit]), "selection", ["captioned"])
        return np.asarray(selection["captioned"].fill_null(True))

    def image_table(self, unit: int) -> pa.Table:
        """Return a shard's image embeddings."""
        store = Store(self.root)
        return store.read(store.read_shard(self.embed[unit]), "image_embeddings")

    def caption_table(self, unit: int) -> pa.Table:
        """Return a shard's caption embeddings."""
        store = Store(self.root)
        return store.read(store.read_shard(self.embed[unit]), "caption_embeddings")

    def word_states(
        self, unit: int, encoder: str, uids: pa.ChunkedArray
    ) -> list[Float[np.ndarray, "tokens width"]]:
        """Return a text encoder's token states of each caption, half floats; `uids` are those of the caption embeddings."""
        store = Store(self.root)
        manifest = store.read_shard(self.embed[unit])
        table = store.read(manifest, "caption_tokens", ["uid", f"{encoder}/tokens"])
        if not table["uid"].equals(uids):
            raise AssertionError(
                f"shard {unit}: caption vectors and word encodings are not of the same captions"
            )
        column: Any = table[f"{encoder}/tokens"].combine_chunks()
        offsets = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())]).astype(np.int64)
        flat = column.flatten()
        states = flat.flatten().to_numpy().reshape(-1, flat.type.list_size)
        return [states[start:stop] for start, stop in pairwise(offsets)]


class PriorRows:
    """Kept pictures of a split that have a full caption: image vector and padded caption vectors, with words if asked for."""

    def __init__(self, shards: EmbeddedShards, split: Split, encoder: str | None = None) -> None:
        """Count the rows of every shard; vectors, and the token states of a text encoder, are read when a unit is loaded."""
        self._shards, self._split, self._encoder = shards, split, encoder
        self.counts: Sequence[int] = [int(self._rows(unit).sum()) for unit in range(len(shards.embed))]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], `full` and `coarse` [n, captions, d] padded with zeros to the fullest row, and their counts.

        With an encoder also `full_words` and `coarse_words`, object arrays [n, captions] of token states [tokens, width].
        """
        images, captions = self._shards.image_table(unit), self._shards.caption_table(unit)
        rows = np.flatnonzero(self._rows(unit))
        towers = tower_names(images.schema)
        loaded = {"image": concatenated(images, "image", towers)[rows]}
        text = concatenated(captions, "text", towers)
        place = {uid: n for n, uid in enumerate(images["uid"].take(pa.array(rows)).to_pylist())}
        owner = np.array([place.get(uid, -1) for uid in captions["uid"].to_pylist()], dtype=np.int64)
        states = self._shards.word_states(unit, self._encoder, captions["uid"]) if self._encoder else None
        for kind in ("full", "coarse"):
            mine = (np.asarray(captions["kind"]) == kind) & (owner >= 0)
            loaded[kind], loaded[f"num_{kind}"] = _padded(text[mine], owner[mine], len(rows))
            if states is not None:
                own = [states[caption] for caption in np.flatnonzero(mine)]
                loaded[f"{kind}_words"] = _listed(own, owner[mine], (len(rows), states[0].shape[1]))
        return loaded

    def _rows(self, unit: int) -> Bool[np.ndarray, "rows"]:
        captions = self._shards.caption_table(unit).select(["uid", "kind"])
        captioned = captions.filter(pc.field("kind") == "full")["uid"].to_pylist()
        images = self._shards.image_table(unit)["uid"]
        learnt = self._shards.keep(unit, self._split) & self._shards.captioned(unit)
        return learnt & np.isin(images.to_pylist(), captioned)


class DecoderRows:
    """Kept pictures of a split: image vector and latent; no caption is needed."""

    def __init__(self, shards: EmbeddedShards, latents: Sequence[str], split: Split) -> None:
        """Count the rows of every shard."""
        self._shards, self._latents, self._split = shards, latents, split
        self.counts: Sequence[int] = [
            int(shards.keep(unit, split).sum()) for unit in range(len(shards.embed))
        ]

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d] and `latent` [n, l]."""
        keep = self._shards.keep(unit, self._split)
        images = self._shards.image_table(unit)
        store = Store(self._shards.root)
        latents = store.read(store.read_shard(self._latents[unit]), "latents")
        kept = images.filter(pa.array(keep))
        row_of = {uid: row for row, uid in enumerate(latents["uid"].to_pylist())}
        place = [row_of.get(uid, -1) for uid in kept["uid"].to_pylist()]
        if -1 in place:
            raise AssertionError(f"shard {unit}: a kept picture has no latent")
        vectors = concatenated(kept, "image", tower_names(images.schema))
        return {"image": vectors, "latent": matrix(latents["latent"])[place]}


def vector_moments(rows: Any, name: str) -> tuple[Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
    """Return mean and standard deviation, float64, of a column over all units, merged in unit order by Chan's formula."""
    from corgi.statistics.moments import Moments

    total = Moments.of(rows.load(0)[name])
    for unit in range(1, len(rows.counts)):
        if rows.counts[unit]:
            total = total.merge(Moments.of(rows.load(unit)[name]))
    return total.mean, np.sqrt(total.variance)


def _listed(
    states: Sequence[Float[np.ndarray, "tokens width"]],
    owner: Int[np.ndarray, "captions"],
    shape: tuple[int, int],
) -> np.ndarray:
    """Lay the token states of each row's captions side by side, the first MAX_CAPTIONS; (rows, width) are given."""
    listed = np.empty((shape[0], MAX_CAPTIONS), dtype=object)
    nothing = np.zeros((0, shape[1]), np.float16)
    for cell in np.ndindex(listed.shape):
        listed[cell] = nothing
    counts = np.zeros(shape[0], dtype=np.int64)
    for state, row in zip(states, owner, strict=True):
        if counts[row] < MAX_CAPTIONS:
            listed[row, counts[row]] = state
            counts[row] += 1
    return listed


def _padded(
    vectors: Float[np.ndarray, "captions dim"], owner: Int[np.ndarray, "captions"], num_rows: int
) -> tuple[Float[np.ndarray, "rows slots dim"], Int[np.ndarray, "rows"]]:
    """Lay the captions of each row side by side, the first MAX_CAPTIONS of them, in as many slots as the fullest row needs."""
    most = int(np.bincount(owner).max(initial=1)) if len(owner) else 1
    padded = np.zeros((num_rows, min(most, MAX_CAPTIONS), vectors.shape[1]), dtype=np.float32)
    counts = np.zeros(num_rows, dtype=np.int64)
    for vector, row in zip(vectors, owner, strict=True):
        if counts[row] < MAX_CAPTIONS:
            padded[row, counts[row]] = vector
            counts[row] += 1
    return padded, counts
