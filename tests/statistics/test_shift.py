"""Property 23 of the method: a planted mixture's means and scales come back; empty and tiny clusters stay sane."""

import numpy as np
import pytest

from corgi.statistics.clusters import nearest, spherical_kmeans
from corgi.statistics.moments import Moments, cluster_moments
from corgi.statistics.shift import (
    choice_accuracy,
    low_rank_parameters,
    matched_scale,
    shift_parameters,
    spectrum,
    two_sample_cosine,
)


@pytest.mark.law
def test_law_23_a_planted_mixture_is_recovered_within_five_percent() -> None:
    generator = np.random.default_rng(0)
    mean, scale = 10 * np.eye(4, 8) + 1, np.linspace(0.1, 0.4, 32).reshape(4, 8)
    label = generator.integers(0, 4, 4000)
    rows = mean[label] + scale[label] * generator.normal(size=(4000, 8))
    index, _ = nearest(rows, spherical_kmeans(rows / np.linalg.norm(rows, axis=1, keepdims=True), 4))
    found = shift_parameters(cluster_moments(rows, index, 4), shrinkage_count=0, floor_share=1e-3)
    mine = [index[label == k][0] for k in range(4)]
    assert sorted(mine) == [0, 1, 2, 3]
    np.testing.assert_allclose(found.mean[mine], mean, rtol=0.05)
    np.testing.assert_allclose(found.scale[mine], scale, rtol=0.05)
    assert found.count.sum() == 4000


@pytest.mark.law
def test_shrinkage_moves_variance_by_its_formula() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 3)) * [1, 2, 3]
    cluster = np.repeat([0, 1], [50, 10])
    parts = cluster_moments(rows, cluster, 2)
    found = shift_parameters(parts, shrinkage_count=100, floor_share=1e-6)
    whole = Moments.of(rows).variance
    expected = (10 * rows[50:].var(axis=0) + 100 * whole) / 110
    np.testing.assert_allclose(found.scale[1] ** 2, expected, rtol=1e-12)
    np.testing.assert_allclose(found.global_scale**2, whole, rtol=1e-12)


@pytest.mark.law
@pytest.mark.parametrize("shrinkage_count", [0.0, 100.0])
def test_law_23_empty_and_single_row_clusters_and_dead_dimensions(shrinkage_count: float) -> None:
    rows = np.random.default_rng(2).normal(size=(40, 5))
    rows[:, 4] = 0.25
    cluster = np.zeros(40, int)
    cluster[7] = 1
    found = shift_parameters(cluster_moments(rows, cluster, 3), shrinkage_count, floor_share=1e-2)
    floor = 1e-2 * np.median(rows.var(axis=0))
    assert (found.scale**2 >= floor * (1 - 1e-12)).all()
    assert (found.global_scale**2 >= floor * (1 - 1e-12)).all()
    np.testing.assert_allclose(found.scale[:, 4] ** 2, floor)
    np.testing.assert_allclose(found.mean[2], rows.mean(axis=0))
    np.testing.assert_allclose(found.scale[2], found.global_scale)
    np.testing.assert_allclose(found.mean[1], rows[7])
    if shrinkage_count:
        np.testing.assert_allclose(found.scale[1, :4] ** 2, rows.var(axis=0)[:4] * 100 / 101, rtol=1e-12)


def test_refuses_no_rows_equal_rows_and_nan() -> None:
    with pytest.raises(ValueError, match="no rows"):
        shift_parameters(cluster_moments(np.zeros((0, 3)), np.zeros(0, int), 2), 1, 0.1)
    with pytest.raises(ValueError, match="equal"):
        shift_parameters(cluster_moments(np.ones((5, 3)), np.zeros(5, int), 2), 1, 0.1)
    with pytest.raises(ValueError, match="NaN"):
        shift_parameters(cluster_moments(np.full((5, 3), np.nan), np.zeros(5, int), 2), 1, 0.1)


def test_choice_accuracy_counts_agreement() -> None:
    mean = np.eye(3)
    text = np.array([[1, 0.1, 0], [0, 2, 0.1], [0, 0, 5], [0.1, 9, 0]])
    assert choice_accuracy(text, np.array([0, 1, 2, 0]), mean) == 0.75
    assert choice_accuracy(10 * text, np.array([0, 1, 2, 0]), 7 * mean) == 0.75
    assert choice_accuracy(text[:0], np.zeros(0, int), mean) is None


@pytest.mark.law
def test_two_sample_cosine_is_the_mean_over_pairs() -> None:
    rows = np.random.default_rng(3).normal(size=(9, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    label = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3])
    pairs = [float(rows[i] @ rows[j]) for i in range(9) for j in range(9) if i != j and label[i] == label[j]]
    assert two_sample_cosine(rows, label) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert two_sample_cosine(rows, np.arange(9)) is None


@pytest.mark.law
def test_matched_scale_recovers_a_planted_ratio() -> None:
    generator = np.random.default_rng(4)
    caption = np.repeat(np.arange(400), 5)
    centre = generator.normal(size=(400, 6))
    rows = centre[caption] + 0.5 * generator.normal(size=(2000, 6))
    assert matched_scale(rows, caption, np.ones((2000, 6))) == pytest.approx(0.5, rel=0.05)
    assert matched_scale(rows, np.arange(2000), np.ones((2000, 6))) is None


@pytest.mark.law
def test_spectrum_sums_to_the_total_variance() -> None:
    rows = np.random.default_rng(5).normal(size=(300, 6)) * np.arange(1, 7)
    values = spectrum(rows)
    assert (np.diff(values) <= 0).all()
    assert values.sum() == pytest.approx(rows.var(axis=0).sum())


@pytest.mark.law
def test_low_rank_covariances_keep_the_diagonal_and_carry_planted_directions() -> None:
    """Rows with r = 2 planted directions beside independent noise: Sigma comes back whole."""
    generator = np.random.default_rng(3)
    directions = generator.normal(size=(2, 6, 2))
    cluster = generator.integers(0, 2, 40_000)
    noise, inner = generator.normal(size=(40_000, 6)), generator.normal(size=(40_000, 2))
    rows = 0.1 * noise + np.einsum("ndr,nr->nd", directions[cluster], inner)
    diagonal = shift_parameters(cluster_moments(rows, cluster, 2), 0, 1e-6)
    found = low_rank_parameters(diagonal, rows, cluster, 2, 0, 1e-6)
    assert found.factor is not None
    for k in range(2):
        sigma = np.diag(found.scale[k] ** 2) + found.factor[k] @ found.factor[k].T
        true = 0.01 * np.eye(6) + directions[k] @ directions[k].T
        np.testing.assert_allclose(sigma, true, atol=0.05 * np.abs(true).max())
        np.testing.assert_allclose(np.diag(sigma), diagonal.scale[k] ** 2, rtol=1e-9)


@pytest.mark.law
def test_law_23_low_rank_covariances_of_empty_and_tiny_clusters_are_the_shrunk_global_one() -> None:
    rows = np.random.default_rng(2).normal(size=(40, 5)) * [1, 2, 3, 1, 0]
    cluster = np.zeros(40, int)
    cluster[7] = 1
    parts = cluster_moments(rows, cluster, 3)
    found = low_rank_parameters(shift_parameters(parts, 100, 1e-2), rows, cluster, 4, 100, 1e-2)
    assert found.factor is not None
    assert np.isfinite(found.factor).all()
    assert (found.scale**2 >= 1e-2 * np.median(rows.var(axis=0)) * (1 - 1e-12)).all()
    covariance = np.cov(rows, rowvar=False, bias=True)
    for k, weight in ((1, 100 / 101), (2, 1.0)):
        sigma = found.factor[k] @ found.factor[k].T
        np.testing.assert_allclose(sigma, weight * covariance, atol=1e-9)
    for rank in (0, 5):
        with pytest.raises(ValueError, match="rank"):
            low_rank_parameters(shift_parameters(parts, 100, 1e-2), rows, cluster, rank, 100, 1e-2)
