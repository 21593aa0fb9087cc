"""Chan's formula: what the shards say together is what all rows say."""

import numpy as np
import pytest

from corgi.statistics.moments import Moments, cluster_moments, empty_moments, merged, pooled


def unit_rows(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(loc=0.3, size=(n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.law
@pytest.mark.parametrize("full", [False, True])
def test_merged_parts_equal_the_whole_in_any_order(full: bool) -> None:
    rows = 1000 + np.random.default_rng(0).normal(size=(1003, 7))
    parts = [Moments.of(part, full) for part in np.array_split(rows, [3, 3, 400, 401, 900])]
    whole = Moments.of(rows, full)
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2]):
        found = merged(parts[i] for i in order)
        assert found.count == whole.count
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(found.second, whole.second, rtol=1e-11, atol=1e-9)
    again = merged(parts)
    np.testing.assert_array_equal(again.second, merged(parts).second)


@pytest.mark.law
def test_variance_is_numpys_and_survives_a_large_mean() -> None:
    rows = 1e6 + np.random.default_rng(1).normal(size=(500, 4))
    np.testing.assert_allclose(Moments.of(rows).variance, rows.var(axis=0), rtol=1e-8)
    np.testing.assert_allclose(
        Moments.of(rows, full=True).variance, np.cov(rows.T, ddof=0), rtol=1e-7, atol=1e-10
    )


@pytest.mark.law
@pytest.mark.parametrize("full", [False, True])
def test_unit_rows_have_trace_plus_squared_mean_one(full: bool) -> None:
    found = Moments.of(unit_rows(300, 16), full)
    trace = np.trace(found.variance) if full else found.variance.sum()
    assert trace + found.mean @ found.mean == pytest.approx(1, abs=1e-12)


@pytest.mark.law
def test_clusters_side_by_side_equal_each_alone_and_pool_to_the_whole() -> None:
    rows = unit_rows(200, 5)
    cluster = np.random.default_rng(2).integers(0, 6, 200)
    cluster[cluster == 4] = 3
    parts = [cluster_moments(rows[a], cluster[a], 6) for a in np.array_split(np.arange(200), 3)]
    found = merged(parts)
    assert found.count[4] == 0
    for k in (0, 1, 2, 3, 5):
        alone = Moments.of(rows[cluster == k])
        assert found.count[k] == alone.count
        np.testing.assert_allclose(found.mean[k], alone.mean, rtol=1e-12)
        np.testing.assert_allclose(found.second[k], alone.second, rtol=1e-11)
    np.testing.assert_allclose(pooled(found).second, Moments.of(rows).second, rtol=1e-11)


def test_nothing_merges_to_nothing_and_changes_nothing() -> None:
    nothing, some = empty_moments((), 3), Moments.of(unit_rows(9, 3))
    np.testing.assert_array_equal(nothing.merge(some).mean, some.mean)
    np.testing.assert_array_equal(some.merge(nothing).second, some.second)
    assert nothing.merge(nothing).count == 0
    assert np.isfinite(nothing.merge(nothing).variance).all()
    assert Moments.of(np.zeros((0, 3))).count == 0


@pytest.mark.law
def test_shard_order_gives_equal_bits_and_any_other_order_agrees_to_1e_12() -> None:
    generator = np.random.default_rng(7)
    rows = unit_rows(4000, 24)
    cluster = generator.integers(0, 9, 4000)
    parts = [cluster_moments(rows[a], cluster[a], 9) for a in np.array_split(np.arange(4000), 37)]
    first, again = merged(parts), merged(parts)
    np.testing.assert_array_equal(first.mean, again.mean)
    np.testing.assert_array_equal(first.second, again.second)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(parts))
        other = merged(parts[index] for index in order)
        np.testing.assert_array_equal(first.count, other.count)
        np.testing.assert_allclose(first.mean, other.mean, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(first.second, other.second, rtol=1e-12)
