"""Laws of the measures: what they must say of truth, collapse and noise."""

import numpy as np
import pytest

from corgi.evaluation.metrics import (
    frechet_distance,
    interval,
    paired_cosine,
    retrieval,
    softmax_average,
    squared_mmd,
    student_interval,
)


def _unit(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_frechet_of_gaussians_is_the_closed_form():
    generator = np.random.default_rng(0)
    a = generator.standard_normal((200_000, 3)) * [1.0, 2.0, 0.5]
    b = generator.standard_normal((200_000, 3)) * [2.0, 1.0, 0.5] + [1.0, 0.0, -1.0]
    assert frechet_distance(a, b) == pytest.approx(2.0 + 1.0 + 1.0, rel=0.02)


def test_frechet_of_equal_sets_is_zero_and_is_symmetric():
    a, b = _unit(300, 8, 0), _unit(300, 8, 1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)


def test_frechet_survives_fewer_rows_than_dimensions():
    assert np.isfinite(frechet_distance(_unit(10, 32, 0), _unit(12, 32, 1)))


def test_the_conditional_mean_beats_honest_samples_in_cosine():
    """The metric trap: with two-sample cosine c, the mean scores about sqrt(c), more than any honest sample."""
    generator = np.random.default_rng(0)
    centre = _unit(1, 64, 0)[0]
    rows = centre + 0.8 * generator.standard_normal((400, 64)) / 8
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    honest = paired_cosine(rows[:200], rows[200:])
    mean = np.tile(rows.mean(0) / np.linalg.norm(rows.mean(0)), (400, 1))
    assert paired_cosine(mean, rows) == pytest.approx(np.sqrt(honest), abs=0.03)
    assert paired_cosine(mean, rows) > honest + 0.05


def test_retrieval_finds_its_own_and_counts_ties_against():
    targets = _unit(50, 32, 3)
    assert retrieval(targets, targets)["R@1"] == 1
    same = np.tile(targets[:1], (50, 1))
    assert retrieval(same, same) == {"R@1": 0.0, "R@5": 0.0, "R@10": 0.0}
    rolled = retrieval(targets, np.roll(targets, 1, axis=0))
    assert rolled["R@1"] == 0


def test_embeddings_that_are_not_finite_retrieve_nothing():
    targets = _unit(50, 32, 3)
    broken = np.full_like(targets, np.nan)
    assert retrieval(broken, targets) == retrieval(targets, broken) == {"R@1": 0.0, "R@5": 0.0, "R@10": 0.0}


def test_a_softmax_average_that_cancels_out_is_zero_not_nan():
    text, image = _unit(1, 16, 0), _unit(1, 16, 1)
    cancelled = softmax_average(text, np.repeat(text, 2, axis=0), np.concatenate([image, -image]), 1.0)
    np.testing.assert_array_equal(cancelled, np.zeros((1, 16)))


def test_interval_covers_the_mean_and_shrinks():
    values = np.random.default_rng(0).standard_normal(400) + 3
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert interval(values) == (low, high)


def test_softmax_average_at_low_temperature_is_the_nearest_neighbour():
    text, image = _unit(20, 16, 0), _unit(20, 16, 1)
    np.testing.assert_allclose(softmax_average(text, text, image, 1e-3), image, atol=1e-6)
    warm = softmax_average(text, text, image, 1e6)
    np.testing.assert_allclose(warm, np.tile(warm[:1], (20, 1)), atol=1e-4)


def test_squared_mmd_is_zero_in_the_mean_for_equal_laws_and_sees_a_lost_spread() -> None:
    rng = np.random.default_rng(0)
    same = [squared_mmd(rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert squared_mmd(0.3 * rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) > max(same)


def test_student_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [student_interval(rng.normal(size=3)) for _ in range(4000)]
    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.012)
    assert student_interval(np.array([1.0])) == (-np.inf, np.inf)
