"""Statistics beside their peers: moments and a bare product, k-means and scikit-learn's and faiss's, memory and its plan.

make bench-statistics        (= python benchmarks/shift_statistics.py; a file called statistics.py would hide the standard module)
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.cluster import MiniBatchKMeans

from benchmarks.figures import Figures, alternated, ratios
from corgi.clip.vectors import column
from corgi.settings.clip import ShiftSettings
from corgi.shift import fit
from corgi.shift.memory import needed_bytes
from corgi.statistics.clusters import nearest, spherical_kmeans
from corgi.statistics.moments import Moments, cluster_moments
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.schema import Split
from corgi.tables.vectors import concatenated

MIB = 2**20


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray:
    """Return unit rows around a hundred directions, so that there are clusters to find."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(100, dim)).astype(np.float32)
    rows = centres[generator.integers(0, 100, n)] + generator.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def moments(figures: Figures, n: int, dim: int) -> None:
    """Compare the full second moment, read from Parquet, with float64 x.T @ x of the same rows in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        table = pa.table({"t/image": column(unit_rows(n, dim, 0))})
        pq.write_table(table, path, use_dictionary=False, compression="zstd", row_group_size=10_000)

        def read() -> np.ndarray:
            return concatenated(pq.read_table(path), "image", ["t"])

        rows = read().astype(np.float64)
        ours, with_read, bare = alternated(
            5,
            lambda: timed(lambda: Moments.of(read(), full=True)),
            lambda: timed(lambda: (lambda x: x.T @ x)(read().astype(np.float64))),
            lambda: timed(lambda: rows.T @ rows),
        )
        diagonal = alternated(5, lambda: timed(lambda: cluster_moments(read(), np.arange(n) % 16, 16)))[0]
    figures.add_rounds("moments_full_vs_read_and_product", ratios(with_read, ours), "x", ">=0.7")
    figures.add_rounds("moments_full_vs_product_alone", ratios(bare, ours), "x")
    rates = [n / seconds / 1000 for seconds in diagonal]
    figures.add_rounds("moments_diagonal_16_clusters", rates, "krows/s")


def kmeans(figures: Figures, n: int, dim: int, k: int) -> None:
    """Compare the fit with scikit-learn's MiniBatchKMeans and with faiss alone, at the same k, on the same threads."""
    rows, threads = unit_rows(n, dim, 1), torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    centroids: dict[str, np.ndarray] = {}

    def ours() -> None:
        centroids["ours"] = spherical_kmeans(rows, k, 25, 0, threads)

    def mini() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen: Any = {"random_state": 0, "n_init": 1, "batch_size": 4096}
            model = MiniBatchKMeans(k, **chosen).fit(rows)
        centroids["mini"] = np.asarray(model.cluster_centers_)

    def alone() -> None:
        model = faiss.Kmeans(
            dim, k, niter=25, seed=0, spherical=True, min_points_per_centroid=1, max_points_per_centroid=n
        )
        model.train(rows)
        centroids["faiss"] = np.asarray(model.centroids)

    taken = alternated(3, lambda: timed(ours), lambda: timed(mini), lambda: timed(alone))
    inertia = {name: float((2 - 2 * nearest(rows, found)[1]).mean()) for name, found in centroids.items()}
    figures.add_rounds("kmeans_time_vs_minibatch", ratios(taken[0], taken[1]), "x", "<=1")
    figures.add_rounds("kmeans_time_vs_faiss", ratios(taken[0], taken[2]), "x", "<=1.3")
    figures.add("kmeans_inertia_vs_minibatch", inertia["ours"] / inertia["mini"], "x", "<=1")
    figures.add("kmeans_inertia_vs_faiss", inertia["ours"] / inertia["faiss"], "x", "<=1.0001")


def memory(figures: Figures, n: int) -> None:
    """Measure what finding 1,024 clusters of 1,536 dimensions and rank 64 holds, beside the plan's figure."""
    settings = ShiftSettings(num_clusters=1024, covariance="low_rank", rank=64)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        held, plain = pool.apply(_held, (n,))
    planned = sum(needed_bytes(settings, 1536, n).values())
    figures.add("memory_k1024_d1536_rank64_measured", held / MIB, "MiB")
    figures.add("memory_measured_vs_plan", held / planned, "x", "<=1")
    whole = needed_bytes(settings, 1536)
    figures.add("memory_k1024_d1536_rank64_plan", sum(whole.values()) / 2**30, "GiB", "<=4")
    diagonal = needed_bytes(ShiftSettings(num_clusters=1024), 1536)
    figures.add("memory_k1024_d1536_diagonal_plan", sum(diagonal.values()) / 2**30, "GiB", "<=4")
    figures.add("memory_of_imports", plain / MIB, "MiB")


def _held(n: int) -> tuple[int, int]:
    """Return the bytes this new process holds at most beyond its imports, and those."""
    settings = ShiftSettings(num_clusters=1024, covariance="low_rank", rank=64, measured_clusters=())
    plain = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = unit_rows(n, 1536, 2).astype(np.float16)
    centroids = rows[:1024].astype(np.float32)
    held = cluster_moments(rows.astype(np.float32), nearest(rows.astype(np.float32), centroids)[0], 1024)
    parameters = fit.shift_parameters(held, settings.shrinkage_count, settings.floor_share)
    fit.over_shards = lambda function, refs, arguments: (function(ref, **arguments) for ref in refs)
    parts = [_Part("", str(number), "", "", rows=part) for number, part in enumerate(np.array_split(rows, 4))]
    found = fit._with_factor(parameters, parts, (centroids, None), settings, lambda name, arrays: None)
    if found.factor is None or not np.isfinite(found.factor).all():
        raise ValueError("no finite factor was found")
    found.factor.tobytes()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - plain, plain


@dataclass(frozen=True)
class _Part(EmbeddedShard):
    """Rows that stand for a shard."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def images(self, split: Split | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows as a shard's vectors, whatever the split."""
        return pa.table({"uid": [str(row) for row in range(len(self.rows))], "t/image": column(self.rows)})


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Benchmark the statistics.")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the moments and of k-means")
    parser.add_argument("--memory-rows", type=int, default=8_192, help="rows of the memory run, 0 for none")
    arguments = parser.parse_args()
    figures = Figures("statistics", "torch", "faiss-cpu", "scikit-learn")
    moments(figures, arguments.rows, 512)
    kmeans(figures, arguments.rows, 256, 256)
    if arguments.memory_rows:
        memory(figures, arguments.memory_rows)
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
