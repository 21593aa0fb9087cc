"""Laws of the kernel distances: brute force over pairs, equal sets, shifts."""

import itertools

import numpy as np
import pytest

from corgi.evaluation.kernels import cmmd, kernel_inception_distance, polynomial_mmd


def rows(number: int, shift: float = 0.0, seed: int = 0, dim: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (number, dim))


def test_law_cmmd_is_the_sum_over_all_pairs() -> None:
    a, b = rows(9), rows(12, 0.5, 1)

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([np.exp(-((p - q) ** 2).sum() / 200) for p, q in itertools.product(x, y)]))

    assert cmmd(a, b) == pytest.approx(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)), rel=1e-9)
    assert cmmd(a, a) == pytest.approx(0, abs=1e-9)
    assert cmmd(a, b) == pytest.approx(cmmd(b, a))


def test_law_the_polynomial_distance_leaves_out_each_row_with_itself() -> None:
    a, b = rows(8), rows(8, 0.3, 1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 7 + 1) ** 3)

    within = sum(kernel(one[i], one[j]) for one in (a, b) for i in range(8) for j in range(8) if i != j) / 56
    between = np.mean([kernel(p, q) for p, q in itertools.product(a, b)])
    assert polynomial_mmd(a, b) == pytest.approx(within - 2 * between)


def test_law_the_unbiased_distance_of_one_law_is_around_zero_and_of_two_above() -> None:
    own = [polynomial_mmd(rows(60, seed=n), rows(60, seed=n + 100)) for n in range(40)]
    other = [polynomial_mmd(rows(60, seed=n), rows(60, 0.5, n + 100)) for n in range(40)]
    assert abs(np.mean(own)) < 3 * np.std(own) / 40**0.5
    assert min(other) > max(own)
    assert min(own) < 0


def test_law_whole_sets_as_subsets_have_no_deviation_and_no_order() -> None:
    a, b = rows(20), rows(20, 0.2, 1)
    mean, deviation = kernel_inception_distance(a, b, subsets=5)
    assert mean == pytest.approx(polynomial_mmd(a, b))
    assert deviation == pytest.approx(0, abs=1e-12)
    assert kernel_inception_distance(a[::-1], b, subsets=5)[0] == pytest.approx(mean)
    assert kernel_inception_distance(a, b, subsets=5, subset_rows=8)[1] > 0
