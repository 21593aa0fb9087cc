"""Spherical k-means: rows belong to the centroid of largest cosine."""

import faiss
import numpy as np
from jaxtyping import Float, Int

from corgi.unit_vectors import unit_rows

ASSIGN_CHUNK_ROWS = 16_384


def spherical_kmeans(
    rows: Float[np.ndarray, "n dim"],
    num_clusters: int,
    num_iterations: int = 25,
    seed: int = 0,
    num_threads: int = 1,
) -> Float[np.ndarray, "k dim"]:
    """Return unit centroids fitted by faiss to unit rows; the same seed and thread count give the same bits.

    Raises:
        ValueError: there are fewer rows than clusters, or a row is not finite.

    """
    if num_clusters > len(rows):
        raise ValueError(f"{num_clusters} clusters need at least as many rows, got {len(rows)}")
    rows = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("rows hold NaN or infinite values")
    if num_clusters == 1:
        return _unit(rows.mean(axis=0, dtype=np.float64, keepdims=True))
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        fit = faiss.Kmeans(
            rows.shape[1],
            num_clusters,
            niter=num_iterations,
            seed=seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        fit.train(rows)
    finally:
        faiss.omp_set_num_threads(before)
    return _unit(np.asarray(fit.centroids, np.float64))


def nearest(
    rows: Float[np.ndarray, "n dim"], centroids: Float[np.ndarray, "k dim"]
) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Return each row's centroid of largest cosine, the lowest index on ties, and that cosine."""
    directions = _unit(centroids)
    index = np.empty(len(rows), np.int64)
    cosine = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), ASSIGN_CHUNK_ROWS):
        part = slice(start, start + ASSIGN_CHUNK_ROWS)
        score = _unit(rows[part]) @ directions.T
        index[part] = score.argmax(axis=1)
        cosine[part] = score.max(axis=1)
    return index, cosine


def _unit(rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n dim"]:
    return unit_rows(rows).astype(np.float32)
