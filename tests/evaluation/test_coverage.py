"""Laws of precision, recall, density and coverage: collapse, invention, outliers."""

import numpy as np
import pytest

from corgi.evaluation.coverage import distances, prdc


def cloud(number: int, at: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(at, 1, (number, 4))


def test_distances_are_those_of_brute_force() -> None:
    a, b = cloud(6), cloud(5, seed=1)
    expected = [[np.linalg.norm(p - q) for q in b] for p in a]
    np.testing.assert_allclose(distances(a, b), expected, atol=1e-7)


def test_law_samples_of_the_same_law_score_high_and_a_far_cloud_zero() -> None:
    near = prdc(cloud(400), cloud(400, seed=1))
    assert min(near["precision"], near["recall"], near["coverage"]) > 0.85
    assert near["density"] == pytest.approx(1, abs=0.15)
    assert set(prdc(cloud(50), cloud(50, 100.0, 1)).values()) == {0.0}


def test_law_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = cloud(300)
    collapsed = real[:1] + 1e-3 * cloud(300, seed=1)
    found = prdc(real, collapsed)
    assert found["precision"] == 1
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.2


def test_law_a_far_outlier_among_real_rows_lifts_precision_but_not_density() -> None:
    real, painted = cloud(200), cloud(200, 8.0, 1)
    with_outlier = np.concatenate([real, np.full((1, 4), 16.0)])
    before, after = prdc(real, painted), prdc(with_outlier, painted)
    assert before["precision"] == 0
    assert after["precision"] > 0.5  # the ball of one outlier swallows them
    assert after["density"] <= 0.2


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="5 neighbours need more rows"):
        prdc(cloud(5), cloud(50))
