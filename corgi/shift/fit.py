"""The shift stage's passes over the embeddings: clusters, moments and covariances, and the rows by which they are evaluated."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from corgi.flow.executor import call
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import InputError
from corgi.shift.maps import (
    Arrays,
    IndexedShard,
    conditioned,
    full_moments,
    judged,
    moments_in,
    over_shards,
    pairs,
    sampled,
    sketches_in,
)
from corgi.shift.memory import BLOCK_BYTES, fit_rows
from corgi.shift.sums import Given, summed
from corgi.statistics.clusters import spherical_kmeans
from corgi.statistics.low_rank import (
    Sketches,
    full_root,
    low_rank_factor,
    shrunk_sketches,
    sketch_basis,
    sketch_width,
)
from corgi.statistics.moments import Moments
from corgi.statistics.shift import ShiftParameters, choice_by_clusters, shift_parameters
from corgi.tables.embedded import EmbeddedShard
from corgi.training.data_checks import check_spread

CONTACT_SHARDS = 4
"""Number of shards from which pictures and captions are taken where reading every shard would take too long."""
MAX_PAIRS = 20_000
"""Largest number of captions with their pictures, of train and of val each, by which the cluster choice is evaluated."""
MAX_MEASURED_ROWS = 50_000
MAX_SAMPLED_SHARDS = 2_000
"""Largest number of shards from which the rows for k-means and the held-out captions are taken."""

Save = Callable[[str, dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class Earlier:
    """An earlier run's centroids and sums, and the identities of the shards in them; `arrays` reads one of its tables."""

    centroids: Float[np.ndarray, "k dim"]
    shards: frozenset[str]
    arrays: Callable[[str], Arrays]


@dataclass(frozen=True)
class Findings:
    """The result of the passes: parameters, the moments they were computed from, and rows by which they are evaluated."""

    parameters: ShiftParameters
    moments: Moments
    centroids: Float[np.ndarray, "k dim"]
    sample: Float[np.ndarray, "n dim"]
    judged: Arrays
    conditioned: Arrays
    pairs: Arrays
    by_clusters: dict[str, dict[str, float | None]]


def find(
    shards: Sequence[IndexedShard], settings: ShiftSettings, earlier: Earlier | None, save: Save
) -> Findings:
    """Run the passes (sample, fit, assign, evaluate); partial results are merged in the order of the shards.

    `save` is called with each name and the sums from which a later run may continue.
    """
    fresh, base = unread(shards, earlier)
    sample = _sample(shards, settings)
    centroids = earlier.centroids if earlier else _fitted(sample, settings.num_clusters, settings)
    moments = _merged_moments(fresh, centroids, base)
    save("clusters", {"centroid": centroids, **_arrays(moments)})
    diagonal = shift_parameters(moments, settings.shrinkage_count, settings.floor_share)
    parameters = _with_covariance(diagonal, fresh, (centroids, base), settings, save)
    some = spread(shards, MAX_SAMPLED_SHARDS)
    limit = -(-MAX_PAIRS // len(some))
    val = joined(over_shards(judged, some, {"mean": parameters.mean, "limit": limit}))
    train = joined(over_shards(pairs, shards[: MAX_PAIRS // 1000], {"limit": limit}))
    captions = joined(over_shards(conditioned, shards[:CONTACT_SHARDS], {}))
    measured = _by_clusters(sample, (val["picture"], val["text"]), settings)
    return Findings(parameters, moments, centroids, sample, val, captions, train, measured)


def unread(
    shards: Sequence[IndexedShard], earlier: Earlier | None
) -> tuple[Sequence[IndexedShard], Earlier | None]:
    """Return the shards to read and the earlier sums to add them to: all shards and None if an earlier shard changed or is missing."""
    if earlier is None:
        return shards, None
    if not earlier.shards <= {shard.identity for shard in shards}:
        return shards, None
    return [shard for shard in shards if shard.identity not in earlier.shards], earlier


def spread(shards: Sequence[IndexedShard], most: int) -> Sequence[IndexedShard]:
    """Return the shards, or `most` of them evenly spaced; a shard has rows from all over the list."""
    number = min(most, len(shards))
    return [shards[index * len(shards) // number] for index in range(number)]


def joined(parts: Iterable[Arrays]) -> Arrays:
    """Return the parts' arrays concatenated, by name."""
    all_parts = list(parts)
    return {name: np.concatenate([part[name] for part in all_parts]) for name in all_parts[0]}


def _sample(shards: Sequence[IndexedShard], settings: ShiftSettings) -> Float[np.ndarray, "n dim"]:
    """Return train vectors as half floats, the same share of each of the sampled shards."""
    some = spread(shards, MAX_SAMPLED_SHARDS)
    total = max(1, sum(shard.kept for shard in some))
    share = min(1.0, fit_rows(settings, total) / total)
    parts = over_shards(sampled, some, {"share": share, "seed": settings.seed})
    sample = np.concatenate([part["rows"] for part in parts])
    if len(sample) < settings.num_clusters:
        raise InputError(
            f"shift.num_clusters={settings.num_clusters} is more than the {len(sample)} train pictures to which k-means is fitted; committed work is safe; lower it"
        )
    check_spread(sample)
    return sample


def _fitted(
    sample: Float[np.ndarray, "n dim"], num_clusters: int, settings: ShiftSettings
) -> Float[np.ndarray, "k dim"]:
    arguments = (sample, num_clusters, settings.num_iterations, settings.seed, settings.num_threads)
    return call(spherical_kmeans, settings.num_threads, 0, *arguments)


def _merged_moments(
    shards: Sequence[EmbeddedShard], centroids: Float[np.ndarray, "k dim"], base: Earlier | None
) -> Moments:
    found = summed(moments_in, _both, shards, {"centroids": centroids}, "shift: moments")
    return _added(found, base, "clusters")


def _added(found: Moments | None, base: Earlier | None, table: str) -> Moments:
    """Return the moments of the shards that were read, merged with those of an earlier run."""
    if base is None:
        assert found is not None  # a run has shards
        return found
    before = _moments(base.arrays(table))
    return before if found is None else before.merge(found)


def _both(before: Moments, after: Moments, given: Given) -> Moments:
    return before.merge(after)


def _both_sketches(before: Sketches, after: Sketches, given: Given) -> Sketches:
    return before.merge(after, given["basis"])


def _with_covariance(
    diagonal: ShiftParameters,
    shards: Sequence[EmbeddedShard],
    known: tuple[Float[np.ndarray, "k dim"], Earlier | None],
    settings: ShiftSettings,
    save: Save,
) -> ShiftParameters:
    """Return the parameters with the covariance that the settings name."""
    if settings.covariance == "full":
        return _with_root(diagonal, shards, known[1], settings, save)
    if settings.covariance == "low_rank":
        return _with_factor(diagonal, shards, known, settings, save)
    return diagonal


def _with_root(
    diagonal: ShiftParameters,
    shards: Sequence[EmbeddedShard],
    base: Earlier | None,
    settings: ShiftSettings,
    save: Save,
) -> ShiftParameters:
    moments = _added(summed(full_moments, _both, shards, {}, "shift: covariance"), base, "full")
    save("full", _arrays(moments))
    root, scale = full_root(moments, settings.shrinkage_count, settings.floor_share)
    return replace(diagonal, cholesky=root[None].astype(np.float32), scale=scale[None])


def _with_factor(
    diagonal: ShiftParameters,
    shards: Sequence[EmbeddedShard],
    known: tuple[Float[np.ndarray, "k dim"], Earlier | None],
    settings: ShiftSettings,
    save: Save,
) -> ShiftParameters:
    """Compute F_k in blocks of clusters, one pass per block, so that memory does not grow with k."""
    k, dim = diagonal.mean.shape
    rank = min(settings.rank, dim)
    basis = sketch_basis(dim, sketch_width(dim, rank), settings.seed)
    one = (np.ones((1, dim)), known[1])
    whole = _block(shards, one, (0, 1), basis, "sketch_all")
    save("sketch_all", _sketch_arrays(whole))
    factor, scale = np.empty((k, dim, rank), np.float32), np.empty((k, dim))
    floor = settings.floor_share * float(np.median(diagonal.global_scale**2))
    for first, last in blocks(k, basis.size):
        name = f"sketch_{first:04d}"
        sketches = _block(shards, known, (first, last), basis, name)
        save(name, _sketch_arrays(sketches))
        shrunk = shrunk_sketches(sketches, whole, settings.shrinkage_count)
        for index, cluster in enumerate(range(first, last)):
            factor[cluster], scale[cluster] = low_rank_factor(
                shrunk[index], diagonal.scale[cluster] ** 2, basis, rank, floor
            )
    return replace(diagonal, factor=factor, scale=scale)


def blocks(num_clusters: int, values_a_cluster: int) -> list[tuple[int, int]]:
    """Return ranges of clusters such that the float64 sketches of each range fit in a block."""
    step = max(1, BLOCK_BYTES // (8 * values_a_cluster))
    return [(first, min(num_clusters, first + step)) for first in range(0, num_clusters, step)]


def _block(
    shards: Sequence[EmbeddedShard],
    known: tuple[Float[np.ndarray, "k dim"], Earlier | None],
    clusters: tuple[int, int],
    basis: Float[np.ndarray, "dim width"],
    name: str,
) -> Sketches:
    centroids, base = known
    size = clusters[1] - clusters[0]
    arguments = {"centroids": centroids, "clusters": clusters, "basis": basis}
    total = Sketches.empty(size, *basis.shape) if base is None else Sketches(**base.arrays(name))
    found = summed(sketches_in, _both_sketches, shards, arguments, f"shift: {name}")
    return total if found is None else total.merge(found, basis)


def _by_clusters(
    sample: Float[np.ndarray, "n dim"],
    val: tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, "m dim"]],
    settings: ShiftSettings,
) -> dict[str, dict[str, float | None]]:
    """Return, by k, how often a val caption chooses its picture's cluster; each k is fitted to the sample."""
    rows = sample[:MAX_MEASURED_ROWS].astype(np.float32)
    measured = sorted({k for k in settings.measured_clusters if 4 * k <= len(rows)})
    pictures, text = (values.astype(np.float32) for values in val)
    return {
        str(k): choice_by_clusters(
            rows, _fitted(rows, k, settings), (pictures, text), settings.shrinkage_count, settings.floor_share
        )
        for k in measured
    }


def _moments(arrays: Arrays) -> Moments:
    return Moments(arrays["count"], arrays["mean"], arrays["second"])


def _arrays(moments: Moments) -> Arrays:
    return {"count": moments.count, "mean": moments.mean, "second": moments.second}


def _sketch_arrays(sketches: Sketches) -> Arrays:
    return {"count": sketches.count, "mean": sketches.mean, "sketch": sketches.sketch}
