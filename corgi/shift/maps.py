"""Ray Data passes over the embeddings, one call per shard: samples, per-cluster moments, evaluation rows and nearest pictures.

Results are returned in shard order, so that merging them gives the same bits however the shards were scheduled.
"""

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from corgi.flow.executor import is_in_process
from corgi.flow.placement import selector
from corgi.settings.errors import InputError
from corgi.statistics.clusters import nearest
from corgi.statistics.low_rank import Sketches
from corgi.statistics.moments import Moments, cluster_moments
from corgi.tables.embedded import EmbeddedShard, rows_of, vectors_of
from corgi.tables.schema import Split
from corgi.unit_vectors import unit_rows

Arrays = dict[str, np.ndarray]
MOMENTS, SKETCHES = ("count", "mean", "second"), ("count", "mean", "sketch")
"""The parts of a shard's sums: names of attributes and of arrays."""
_LEAST_NORM = 0.5
"""Stored vectors have unit norm to the precision of half floats; a norm below this is an error."""


@dataclass(frozen=True)
class IndexedShard(EmbeddedShard):
    """A shard with its count and identity from the indexes of its stages."""

    kept: int = 0
    """Number of images with vectors, including those that curate dropped."""
    identity: str = ""
    """Digest of what the shard's statistics depend on: the bytes of its vectors and of its selection."""


def images(shard: EmbeddedShard, split: Split) -> tuple[list[str], Float[np.ndarray, "n dim"]]:
    """Return uids and vectors of the kept pictures of a split."""
    table = shard.images(split)
    vectors = vectors_of(table, "image")
    if not (np.isfinite(vectors).all() and (np.linalg.norm(vectors, axis=1) > _LEAST_NORM).all()):
        raise InputError(
            f"shard {shard.name} has vectors that are not finite or are zero; other shards are safe; run embed again with --force"
        )
    return table["uid"].to_pylist(), vectors


def captions(
    shard: EmbeddedShard, uids: Sequence[str]
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n dim"]]:
    """Return the picture's row and the vector of every full caption of these pictures that may be used for training."""
    table, withheld = shard.captions(), shard.withheld()
    rows = rows_of(table["uid"].to_pylist(), [None if uid in withheld else uid for uid in uids])
    chosen = np.flatnonzero((rows >= 0) & (np.asarray(table["kind"]) == "full"))
    return rows[chosen], vectors_of(table.take(chosen), "text")


def sampled(shard: EmbeddedShard, share: float, seed: int) -> Arrays:
    """Return a share of a shard's kept train vectors as half floats, chosen by (seed, shard), and their uids."""
    uids, vectors = images(shard, Split.TRAIN)
    number = min(len(uids), int(np.ceil(share * len(uids))))
    words = [seed % 2**32, *shard.name.encode()]
    rows = np.sort(
        np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).permutation(len(uids))[:number]
    )
    return {
        "rows": vectors[rows].astype(np.float16),
        "uids": np.array([uids[row] for row in rows], dtype="U64"),
    }


def assigned(shard: EmbeddedShard, centroids: Float[np.ndarray, "k dim"]) -> Arrays:
    """Return the moments of a shard's kept train vectors in each cluster; clusters without rows are left out."""
    _, vectors = images(shard, Split.TRAIN)
    index, _ = nearest(vectors, centroids)
    moments = cluster_moments(vectors, index, len(centroids))
    return _of_filled(moments, MOMENTS)


def moments_in(shard: EmbeddedShard, centroids: Float[np.ndarray, "k dim"]) -> Moments:
    """Return the moments of a shard's kept train vectors in each cluster."""
    return moments_of(assigned(shard, centroids), len(centroids))


def moments_of(arrays: Mapping[str, np.ndarray], num_clusters: int) -> Moments:
    """Return a shard's moments of all clusters, empty ones included."""
    dim = arrays["mean"].shape[1]
    moments = Moments(
        np.zeros(num_clusters, np.int64), np.zeros((num_clusters, dim)), np.zeros((num_clusters, dim))
    )
    _fill(moments, arrays, MOMENTS)
    return moments


def sketched(
    shard: EmbeddedShard,
    centroids: Float[np.ndarray, "k dim"],
    clusters: tuple[int, int],
    basis: Float[np.ndarray, "dim width"],
) -> Arrays:
    """Return the sketches of a shard's kept train vectors in a range of clusters (end excluded); empty clusters are left out."""
    _, vectors = images(shard, Split.TRAIN)
    index, _ = nearest(vectors, centroids)
    sketches = Sketches.of(vectors, index, range(*clusters), basis)
    return _of_filled(sketches, SKETCHES)


def sketches_in(
    shard: EmbeddedShard,
    centroids: Float[np.ndarray, "k dim"],
    clusters: tuple[int, int],
    basis: Float[np.ndarray, "dim width"],
) -> Sketches:
    """Return the sketches of a shard's kept train vectors in a range of clusters (end excluded)."""
    return sketches_of(sketched(shard, centroids, clusters, basis), clusters[1] - clusters[0])


def sketches_of(arrays: Mapping[str, np.ndarray], num_sets: int) -> Sketches:
    """Return a shard's sketches of all clusters, empty ones included."""
    sketches = Sketches.empty(num_sets, *arrays["sketch"].shape[1:])
    _fill(sketches, arrays, SKETCHES)
    return sketches


def _of_filled(found: Moments | Sketches, names: Sequence[str]) -> Arrays:
    """Return the sums of the clusters that have rows, and the indices of these clusters."""
    filled = np.flatnonzero(found.count)
    return {"cluster": filled, **{name: getattr(found, name)[filled] for name in names}}


def _fill(found: Moments | Sketches, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Copy the sums of some clusters into the sums of all clusters."""
    for name in names:
        getattr(found, name)[arrays["cluster"]] = arrays[name]


def full_moments(shard: EmbeddedShard) -> Moments:
    """Return the moments of a shard's kept train vectors with the full [dim, dim] second moment."""
    return Moments.of(images(shard, Split.TRAIN)[1], full=True)


def pairs(shard: EmbeddedShard, limit: int) -> Arrays:
    """Return picture and caption vectors of a shard's first `limit` train captions as half floats."""
    uids, vectors = images(shard, Split.TRAIN)
    row, text = captions(shard, uids)
    return {"picture": vectors[row[:limit]].astype(np.float16), "text": text[:limit].astype(np.float16)}


def judged(shard: EmbeddedShard, mean: Float[np.ndarray, "k dim"], limit: int) -> Arrays:
    """Return vectors of a shard's first `limit` val captions and their pictures, with each picture's cluster and cosines.

    `picture_text` is the cosine of caption and picture, `picture_mean` that of the picture and its cluster's mu, `text_mean`
    that of the caption and the mu of its picture's cluster.
    """
    uids, vectors = images(shard, Split.VAL)
    row, text = (found[:limit] for found in captions(shard, uids))
    index, cosine = nearest(vectors, mean)
    direction = unit_rows(mean)
    return {
        "picture": vectors[row].astype(np.float16),
        "text": text.astype(np.float16),
        "cluster": index[row],
        "picture_text": np.einsum("nd,nd->n", vectors[row], text),
        "picture_mean": cosine[row],
        "text_mean": np.einsum("nd,nd->n", direction[index[row]], text),
    }


def conditioned(shard: EmbeddedShard) -> Arrays:
    """Return a shard's kept train vectors, one row per caption, full or coarse, and the captions' digests."""
    uids, vectors = images(shard, Split.TRAIN)
    texts, withheld = shard.caption_texts(), shard.withheld()
    row = rows_of([uid for uid, _ in texts], [None if uid in withheld else uid for uid in uids])
    names = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.values()]
    words = np.frombuffer(b"".join(names), np.int64)
    return {"rows": vectors[row[row >= 0]].astype(np.float16), "caption": words[row >= 0]}


def closest(
    shard: EmbeddedShard, mean: Float[np.ndarray, "k dim"], clusters: Sequence[int], number: int
) -> Arrays:
    """Return, for each of the given clusters, the uids and cosines of the `number` train pictures closest to mu_k."""
    uids, vectors = images(shard, Split.TRAIN)
    index, cosine = nearest(vectors, mean)
    rows = [row for k in clusters for row in _top(np.flatnonzero(index == k), cosine, number)]
    return {
        "cluster": index[rows],
        "cosine": cosine[rows],
        "uids": np.array([uids[row] for row in rows], dtype="U64"),
    }


def _top(rows: Int[np.ndarray, "n"], score: Float[np.ndarray, "m"], number: int) -> Int[np.ndarray, "top"]:
    return rows[np.argsort(-score[rows], kind="stable")[:number]]


def over_shards(
    function: Callable[..., Arrays], shards: Sequence[EmbeddedShard], arguments: Mapping[str, object]
) -> Iterator[Arrays]:
    """Yield `function(shard, **arguments)` for every shard, in order; each is computed by a Ray Data task."""
    if is_in_process():
        yield from (unpack(pack(function(shard, **arguments))) for shard in shards)
        return
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    context.execution_options.preserve_order = True
    context.execution_options.label_selector = selector(0)
    shared = ray.put(arguments)
    rows = [{"shard": pickle.dumps(shard)} for shard in shards]

    def call(row: dict[str, bytes]) -> dict[str, bytes]:
        return {"arrays": pack(function(pickle.loads(row["shard"]), **ray.get(shared)))}  # noqa: S301 - pickled above

    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(call, num_cpus=1)
    for row in dataset.iter_rows():
        yield unpack(row["arrays"])


def pack(arrays: Arrays) -> bytes:
    """Return arrays as bytes; equal arrays give equal bytes."""
    body = io.BytesIO()
    np.savez(body, allow_pickle=False, **arrays)
    return body.getvalue()


def unpack(data: bytes) -> Arrays:
    """Return packed arrays."""
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
