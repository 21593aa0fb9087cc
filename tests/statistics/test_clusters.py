"""Spherical k-means on a planted mixture, and its failures."""

import numpy as np
import pytest

from corgi.statistics.clusters import nearest, spherical_kmeans


def planted(n: int = 4000, dim: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows around four orthogonal directions, and which."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 4, n)
    rows = np.eye(4, dim)[label] + 0.05 * generator.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), label


@pytest.mark.law
def test_recovers_planted_clusters() -> None:
    rows, label = planted()
    index, cosine = nearest(rows, spherical_kmeans(rows, 4))
    for k in range(4):
        assert len(set(index[label == k])) == 1
    assert len(set(index)) == 4
    assert cosine.min() > 0.8


def test_same_seed_gives_the_same_bits() -> None:
    rows, _ = planted(500)
    np.testing.assert_array_equal(spherical_kmeans(rows, 7, seed=3), spherical_kmeans(rows, 7, seed=3))


def test_centroids_are_unit_and_one_cluster_is_the_mean_direction() -> None:
    rows, _ = planted(500)
    assert np.linalg.norm(spherical_kmeans(rows, 9), axis=1) == pytest.approx(1, abs=1e-6)
    mean = rows.mean(axis=0)
    np.testing.assert_allclose(spherical_kmeans(rows, 1)[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_duplicated_rows_leave_empty_clusters_without_nan() -> None:
    rows = np.repeat(np.eye(2, 8, dtype=np.float32), 5, axis=0)
    centroids = spherical_kmeans(rows, 6)
    index, _ = nearest(rows, centroids)
    assert np.isfinite(centroids).all()
    assert index.max() < 6


@pytest.mark.law
def test_nearest_is_scale_free_and_takes_the_lowest_index_on_ties() -> None:
    rows, _ = planted(300)
    centroids = spherical_kmeans(rows, 4)
    np.testing.assert_array_equal(nearest(rows, centroids)[0], nearest(4 * rows, 0.25 * centroids)[0])
    assert nearest(rows[:1], np.stack([rows[0], rows[0]]))[0].tolist() == [0]


def test_refuses_more_clusters_than_rows_and_nan() -> None:
    rows, _ = planted(10)
    with pytest.raises(ValueError, match="11 clusters"):
        spherical_kmeans(rows, 11)
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        spherical_kmeans(rows, 2)
