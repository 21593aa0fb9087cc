"""Property 23 of the method: a planted mixture's means and scales come back; empty and tiny clusters stay sane."""

import numpy as np
import pytest

from corgi.statistics.clusters import nearest, spherical_kmeans
from corgi.statistics.moments import Moments, cluster_moments
from corgi.statistics.shift import (
    ShiftParameters,
    choice_accuracy,
    choice_by_clusters,
    expected_choice_accuracy,
    expected_directions,
    matched_scale,
    regression_scale,
    shift_parameters,
    spectrum,
)


@pytest.mark.law
def test_planted_mixture_is_recovered_within_five_percent() -> None:
    generator = np.random.default_rng(0)
    mean, scale = 10 * np.eye(4, 8) + 1, np.linspace(0.1, 0.4, 32).reshape(4, 8)
    label = generator.integers(0, 4, 12_000)
    rows = mean[label] + scale[label] * generator.normal(size=(12_000, 8))
    index, _ = nearest(rows, spherical_kmeans(rows / np.linalg.norm(rows, axis=1, keepdims=True), 4))
    found = shift_parameters(cluster_moments(rows, index, 4), shrinkage_count=0.0, floor_share=1e-3)
    mine = [index[label == k][0] for k in range(4)]
    assert sorted(mine) == [0, 1, 2, 3]
    np.testing.assert_allclose(found.mean[mine], mean, rtol=0.05)
    np.testing.assert_allclose(found.scale[mine], scale, rtol=0.05)
    assert found.count.sum() == 12_000


@pytest.mark.law
def test_shrinkage_moves_variance_by_its_formula() -> None:
    rows = np.random.default_rng(1).normal(size=(60, 3)) * [1, 2, 3]
    cluster = np.repeat([0, 1], [50, 10])
    parts = cluster_moments(rows, cluster, 2)
    found = shift_parameters(parts, shrinkage_count=100.0, floor_share=1e-6)
    whole = Moments.of(rows).variance
    expected = (10 * rows[50:].var(axis=0) + 100 * whole) / 110
    np.testing.assert_allclose(found.scale[1] ** 2, expected, rtol=1e-12)
    np.testing.assert_allclose(found.global_scale**2, whole, rtol=1e-12)


@pytest.mark.law
@pytest.mark.parametrize("shrinkage_count", [0.0, 100.0])
def test_empty_and_single_row_clusters_and_dead_dimensions(shrinkage_count: float) -> None:
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
        shift_parameters(cluster_moments(np.zeros((0, 3)), np.zeros(0, int), 2), 1.0, 0.1)
    with pytest.raises(ValueError, match="equal"):
        shift_parameters(cluster_moments(np.ones((5, 3)), np.zeros(5, int), 2), 1.0, 0.1)
    with pytest.raises(ValueError, match="NaN"):
        shift_parameters(cluster_moments(np.full((5, 3), np.nan), np.zeros(5, int), 2), 1.0, 0.1)


def test_choice_accuracy_counts_agreement() -> None:
    mean = np.eye(3)
    text = np.array([[1, 0.1, 0], [0, 2, 0.1], [0, 0, 5], [0.1, 9, 0]])
    assert choice_accuracy(text, np.array([0, 1, 2, 0]), mean) == 0.75
    assert choice_accuracy(10 * text, np.array([0, 1, 2, 0]), 7 * mean) == 0.75
    assert choice_accuracy(text[:0], np.zeros(0, int), mean) is None


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


def wide_and_narrow() -> ShiftParameters:
    """Two clusters in the same direction, one much wider; a third elsewhere."""
    mean = np.array([[0.9, 0.1, 0, 0], [0.9, 0.0, 0.1, 0], [0, 0, 0, 0.9]])
    scale = np.array([[0.02] * 4, [0.8] * 4, [0.1] * 4])
    return ShiftParameters(mean, scale, np.array([5, 5, 5]), mean.mean(axis=0), scale.mean(axis=0))


@pytest.mark.law
def test_expected_cosine_sees_the_spread_that_the_cosine_to_the_mean_does_not() -> None:
    shift = wide_and_narrow()
    directions = expected_directions(shift, 4000)
    generator = np.random.default_rng(9)
    for k in range(3):
        drawn = shift.mean[k] + shift.scale[k] * generator.normal(size=(200_000, 4))
        text = generator.normal(size=4)
        text /= np.linalg.norm(text)
        cosine = (drawn @ text / np.linalg.norm(drawn, axis=1)).mean()
        assert directions[k] @ text == pytest.approx(cosine, abs=0.02)
    text = np.array([[1.0, 0.0, 0.11, 0.0]])
    assert choice_accuracy(text, np.array([1]), shift.mean) == 1
    assert expected_choice_accuracy(text, np.array([0]), directions) == 1
    assert expected_choice_accuracy(text[:0], np.zeros(0, int), directions) is None
    np.testing.assert_array_equal(directions, expected_directions(shift, 4000))


@pytest.mark.law
@pytest.mark.parametrize("form", ["factor", "cholesky"])
def test_expected_directions_follow_the_whole_covariance(form: str) -> None:
    generator = np.random.default_rng(1)
    root = 0.3 * np.tril(generator.normal(size=(4, 4))) + 0.2 * np.eye(4)
    mean, scale = generator.normal(size=(1, 4)), np.full((1, 4), 0.2)
    values = {"factor": root[None, :, :2]} if form == "factor" else {"cholesky": root[None]}
    shift = ShiftParameters(mean, scale, np.array([9]), mean[0], scale[0], **values)
    covariance = np.diag([0.04] * 4) + root[:, :2] @ root[:, :2].T if form == "factor" else root @ root.T
    drawn = generator.multivariate_normal(mean[0], covariance, 200_000)
    expected = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(expected_directions(shift, 100_000)[0], expected, atol=0.01)


def test_choice_by_clusters_measures_on_pairs_that_took_no_part() -> None:
    generator = np.random.default_rng(2)
    label = generator.integers(0, 3, 900)
    rows = np.eye(3, 6)[label] + 0.05 * generator.normal(size=(900, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pictures, text = rows[:60], rows[:60] + 0.02 * generator.normal(size=(60, 6))
    centroids = spherical_kmeans(rows[60:], 3)
    found = choice_by_clusters(rows[60:], centroids, (pictures, text), 1.0, 1e-3)
    assert found["cosine"] == found["expected_cosine"] == 1
    assert found["chance"] == pytest.approx(np.bincount(label[:60]).max() / 60)
    empty = choice_by_clusters(rows[60:], centroids, (pictures[:0], text[:0]), 1.0, 1e-3)
    assert set(empty.values()) == {None}


@pytest.mark.law
def test_regression_bounds_the_matched_scale_from_above() -> None:
    generator = np.random.default_rng(3)
    text = generator.normal(size=(4000, 5))
    rows = text @ generator.normal(size=(5, 6)) + 0.5 * generator.normal(size=(4000, 6))
    train, val = (rows[:3000], text[:3000]), (rows[3000:], text[3000:])
    assert regression_scale(train, val, np.ones((1000, 6))) == pytest.approx(0.5, rel=0.05)
    assert regression_scale((rows[:5], text[:5]), val, np.ones((1000, 6))) is None
    nonlinear = (rows[:3000], np.abs(text[:3000])), (rows[3000:], np.abs(text[3000:]))
    bound = regression_scale(*nonlinear, np.ones((1000, 6)))
    assert bound is not None
    assert bound > 0.5
