"""Ray Data passes over the embeddings, a shard a call: samples, per-cluster moments, choices and neighbours.

Results come back in shard order, so that merging them is bit-equal however the shards were scheduled.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float, Int

from corgi.clip.vectors import concatenated
from corgi.flow.placement import selector
from corgi.settings.errors import InputError
from corgi.settings.section import digest
from corgi.statistics.clusters import nearest
from corgi.statistics.low_rank import Sketches
from corgi.statistics.moments import Moments, cluster_moments
from corgi.tables.schema import Split
from corgi.tables.store import Store

Arrays = dict[str, np.ndarray]
_LEAST_NORM = 0.5
"""Stored vectors have unit norm to the precision of half floats; one below this is none."""


@dataclass(frozen=True)
class ShardRef:
    """One shard's embeddings and selection by manifest path, and the towers whose vectors count."""

    root: str
    shard: str
    download: str
    embed: str
    curate: str
    towers: tuple[str, ...]

    def images(self, split: Split) -> tuple[list[str], Float[np.ndarray, "n dim"]]:
        """Return uids and vectors of the kept pictures of a split."""
        store = Store(self.root)
        selection = store.read(store.read_shard(self.curate), "selection", ["uid", "keep"])
        kept = selection.filter(selection["keep"])["uid"]
        table = store.read(store.read_shard(self.embed), "image_embeddings")
        table = table.filter((pc.field("split") == split.value) & pc.field("uid").isin(kept))
        vectors = concatenated(table, "image", self.towers)
        if not (np.isfinite(vectors).all() and (np.linalg.norm(vectors, axis=1) > _LEAST_NORM).all()):
            raise InputError(
                f"shard {self.shard} holds vectors that are not finite or zero; other shards are safe; run embed again with --force"
            )
        return table["uid"].to_pylist(), vectors

    def captions(self, uids: Sequence[str]) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n dim"]]:
        """Return, for every full caption of these pictures, the picture's row and the caption's vector."""
        store = Store(self.root)
        table = store.read(store.read_shard(self.embed), "caption_embeddings")
        rows = rows_of(table["uid"].to_pylist(), self.captioned(uids))
        chosen = np.flatnonzero((rows >= 0) & (np.asarray(table["kind"]) == "full"))
        return rows[chosen], concatenated(table.take(chosen), "text", self.towers)

    def captioned(self, uids: Sequence[str]) -> list[str | None]:
        """Return the uids of pictures whose captions may be learnt from, None in the place of the others."""
        store = Store(self.root)
        selection = store.read(store.read_shard(self.curate), "selection", ["uid", "captioned"])
        without = set(selection.filter(pc.field("captioned") == False)["uid"].to_pylist())  # noqa: E712 - a column
        return [None if uid in without else uid for uid in uids]

    @property
    def identity(self) -> str:
        """Name what the statistics of this shard depend on: the bytes of its vectors and of its selection."""
        store = Store(self.root)
        files = [*store.read_shard(self.embed).files, *store.read_shard(self.curate).files]
        return digest([e.sha256 for e in files if e.table in ("image_embeddings", "selection")])


def rows_of(names: Sequence[str], uids: Sequence[str | None]) -> Int[np.ndarray, "n"]:
    """Return where each name stands among the uids, -1 where it does not."""
    place = {uid: row for row, uid in enumerate(uids)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def sampled(ref: ShardRef, share: float, seed: int) -> Arrays:
    """Return a share of a shard's kept train vectors, half floats, chosen by (seed, shard), and their uids."""
    uids, vectors = ref.images(Split.TRAIN)
    number = min(len(uids), int(np.ceil(share * len(uids))))
    words = [seed % 2**32, *ref.shard.encode()]
    rows = np.sort(
        np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).permutation(len(uids))[:number]
    )
    return {
        "rows": vectors[rows].astype(np.float16),
        "uids": np.array([uids[row] for row in rows], dtype="U64"),
    }


def assigned(ref: ShardRef, centroids: Float[np.ndarray, "k dim"]) -> Arrays:
    """Return the moments of a shard's kept train vectors in each cluster; clusters without rows are left out."""
    _, vectors = ref.images(Split.TRAIN)
    index, _ = nearest(vectors, centroids)
    found = cluster_moments(vectors, index, len(centroids))
    filled = np.flatnonzero(found.count)
    return {
        "cluster": filled,
        "count": found.count[filled],
        "mean": found.mean[filled],
        "second": found.second[filled],
    }


def moments_of(arrays: Mapping[str, np.ndarray], num_clusters: int) -> Moments:
    """Return a shard's moments with the empty clusters in place again."""
    dim = arrays["mean"].shape[1]
    found = Moments(
        np.zeros(num_clusters, np.int64), np.zeros((num_clusters, dim)), np.zeros((num_clusters, dim))
    )
    for name in ("count", "mean", "second"):
        getattr(found, name)[arrays["cluster"]] = arrays[name]
    return found


def sketched(
    ref: ShardRef,
    centroids: Float[np.ndarray, "k dim"],
    clusters: tuple[int, int],
    basis: Float[np.ndarray, "dim width"],
) -> Arrays:
    """Return the sketches of a shard's kept train vectors in clusters first to last (excluded); empty ones are left out."""
    _, vectors = ref.images(Split.TRAIN)
    index, _ = nearest(vectors, centroids)
    found = Sketches.of(vectors, index, range(*clusters), basis)
    filled = np.flatnonzero(found.count)
    return {
        "cluster": filled,
        "count": found.count[filled],
        "mean": found.mean[filled],
        "sketch": found.sketch[filled],
    }


def sketches_of(arrays: Mapping[str, np.ndarray], num_sets: int) -> Sketches:
    """Return a shard's sketches with the empty clusters in place again."""
    found = Sketches.empty(num_sets, *arrays["sketch"].shape[1:])
    for name in ("count", "mean", "sketch"):
        getattr(found, name)[arrays["cluster"]] = arrays[name]
    return found


def full_moments(ref: ShardRef) -> Arrays:
    """Return the moments of a shard's kept train vectors with the whole [dim, dim] second moment."""
    found = Moments.of(ref.images(Split.TRAIN)[1], full=True)
    return {"count": found.count, "mean": found.mean, "second": found.second}


def pairs(ref: ShardRef, limit: int) -> Arrays:
    """Return picture and caption vectors of a shard's first train captions, by uid, half floats."""
    uids, vectors = ref.images(Split.TRAIN)
    row, text = ref.captions(uids)
    return {"picture": vectors[row[:limit]].astype(np.float16), "text": text[:limit].astype(np.float16)}


def judged(ref: ShardRef, mean: Float[np.ndarray, "k dim"], limit: int) -> Arrays:
    """Return vectors of a shard's first val captions and pictures and, beside each, the picture's cluster and cosines.

    `picture_text`: caption and its picture; `picture_mean`: picture and its cluster's mu; `text_mean`: caption
    and the mu of its picture's cluster.
    """
    uids, vectors = ref.images(Split.VAL)
    row, text = (found[:limit] for found in ref.captions(uids))
    index, cosine = nearest(vectors, mean)
    direction = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return {
        "picture": vectors[row].astype(np.float16),
        "text": text.astype(np.float16),
        "cluster": index[row],
        "picture_text": np.einsum("nd,nd->n", vectors[row], text),
        "picture_mean": cosine[row],
        "text_mean": np.einsum("nd,nd->n", direction[index[row]], text),
    }


def conditioned(ref: ShardRef) -> Arrays:
    """Return a shard's kept train vectors once per caption, full or coarse, and those captions' digests."""
    uids, vectors = ref.images(Split.TRAIN)
    store = Store(ref.root)
    captions = store.read(store.read_shard(ref.download), "captions", ["uid", "caption"])
    row = rows_of(captions["uid"].to_pylist(), ref.captioned(uids))
    names = [
        hashlib.blake2b(text.encode(), digest_size=8).digest() for text in captions["caption"].to_pylist()
    ]
    words = np.frombuffer(b"".join(names), np.int64)
    return {"rows": vectors[row[row >= 0]].astype(np.float16), "caption": words[row >= 0]}


def closest(ref: ShardRef, mean: Float[np.ndarray, "k dim"], clusters: Sequence[int], number: int) -> Arrays:
    """Return, for each of some clusters, the uids and cosines of the `number` train pictures closest to mu_k."""
    uids, vectors = ref.images(Split.TRAIN)
    index, cosine = nearest(vectors, mean)
    rows = [row for k in clusters for row in _top(np.flatnonzero(index == k), cosine, number)]
    return {
        "cluster": index[rows],
        "cosine": cosine[rows],
        "uids": np.array([uids[row] for row in rows], dtype="U64"),
    }


def _top(rows: Int[np.ndarray, "n"], score: Float[np.ndarray, "m"], number: int) -> Int[np.ndarray, "top"]:
    return rows[np.argsort(-score[rows], kind="stable")[:number]]


def over_shards(function: Any, refs: Sequence[ShardRef], arguments: dict[str, Any]) -> Iterator[Arrays]:
    """Yield `function(ref, **arguments)` of every shard, in order, each computed by a Ray Data task."""
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.label_selector = selector(0)
    shared = ray.put(arguments)
    rows = [{"position": position} for position in range(len(refs))]
    by_position = ray.put(list(refs))

    def call(row: dict[str, Any]) -> dict[str, Any]:
        ref = ray.get(by_position)[row["position"]]
        return {"arrays": pack(function(ref, **ray.get(shared)))}

    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(call, num_cpus=1)
    for row in dataset.iter_rows():
        yield unpack(row["arrays"])


def pack(arrays: Arrays) -> bytes:
    """Return arrays as bytes, the same for the same arrays."""
    body = io.BytesIO()
    np.savez(body, allow_pickle=False, **arrays)
    return body.getvalue()


def unpack(data: bytes) -> Arrays:
    """Return packed arrays."""
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
