"""Low rank plus diagonal: sketches merge exactly, planted directions come back, the diagonal stays."""

import numpy as np
import pytest

from corgi.statistics.low_rank import (
    Sketches,
    full_root,
    low_rank_factor,
    shrunk_sketches,
    sketch_basis,
    sketch_width,
)
from corgi.statistics.moments import Moments

DIM, RANK = 40, 5


def planted(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of covariance F F^T + 0.01 I, and F."""
    generator = np.random.default_rng(seed)
    factor = np.linalg.qr(generator.normal(size=(DIM, RANK)))[0] * np.array([2.0, 1.6, 1.3, 1.0, 0.8])
    return generator.normal(size=(n, RANK)) @ factor.T + 0.1 * generator.normal(size=(n, DIM)) + 3, factor


@pytest.mark.law
@pytest.mark.parametrize("width", [12, DIM])
def test_merged_sketches_equal_the_whole_in_any_order(width: int) -> None:
    rows, _ = planted(700)
    cluster = np.random.default_rng(1).integers(0, 4, 700)
    basis = sketch_basis(DIM, width, 0)
    parts = [Sketches.of(rows[a], cluster[a], range(4), basis) for a in np.array_split(np.arange(700), 5)]
    whole = Sketches.of(rows, cluster, range(4), basis)
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        total = Sketches.empty(4, DIM, width)
        for index in order:
            total = total.merge(parts[index], basis)
        np.testing.assert_array_equal(total.count, whole.count)
        np.testing.assert_allclose(total.sketch, whole.sketch, rtol=1e-12, atol=1e-10)
    covariance = Moments.of(rows[cluster == 2], full=True).second
    np.testing.assert_allclose(whole.sketch[2], covariance @ basis, rtol=1e-9, atol=1e-9)


@pytest.mark.law
@pytest.mark.parametrize("width", [sketch_width(DIM, RANK), DIM])
def test_planted_directions_come_back_and_the_diagonal_stays(width: int) -> None:
    rows, planted_factor = planted(20_000)
    basis = sketch_basis(DIM, width, 3)
    found = Sketches.of(rows, np.zeros(len(rows), int), range(1), basis)
    variance = rows.var(axis=0)
    factor, scale = low_rank_factor(found.sketch[0] / len(rows), variance, basis, RANK, 1e-6)
    expected = planted_factor @ planted_factor.T
    assert np.linalg.norm(factor @ factor.T - expected) < 0.05 * np.linalg.norm(expected)
    np.testing.assert_allclose(scale, 0.1, rtol=0.2)
    np.testing.assert_allclose(scale**2 + (factor**2).sum(axis=1), variance, rtol=1e-9)


@pytest.mark.law
def test_isotropic_rows_have_next_to_no_factor() -> None:
    rows = np.random.default_rng(4).normal(size=(50_000, DIM))
    basis = np.eye(DIM)
    found = Sketches.of(rows, np.zeros(len(rows), int), range(1), basis)
    factor, scale = low_rank_factor(found.sketch[0] / len(rows), rows.var(axis=0), basis, RANK, 1e-6)
    assert (factor**2).sum(axis=0).max() < 0.1
    np.testing.assert_allclose(scale**2, 1, atol=0.1)


def test_empty_and_single_row_clusters_take_the_global_directions() -> None:
    rows, _ = planted(300)
    cluster = np.zeros(300, int)
    cluster[5] = 1
    basis = sketch_basis(DIM, 14, 0)
    whole = Sketches.of(rows, np.zeros(300, int), range(1), basis)
    own = Sketches.of(rows, cluster, range(3), basis)
    shrunk = shrunk_sketches(own, whole, 100.0)
    np.testing.assert_allclose(shrunk[2], whole.sketch[0] / 300)
    np.testing.assert_allclose(shrunk[1], whole.sketch[0] / 300 * 100 / 101)
    for sketch in (*shrunk, np.zeros_like(shrunk[0])):
        factor, scale = low_rank_factor(sketch, rows.var(axis=0), basis, RANK, 1e-4)
        assert np.isfinite(factor).all()
        assert (scale**2 >= 1e-4 * (1 - 1e-12)).all()


@pytest.mark.law
def test_a_full_root_gives_the_covariance_back_and_floors_what_is_singular() -> None:
    rows, _ = planted(4000)
    root, scale = full_root(Moments.of(rows, full=True), 0.0, 1e-6)
    np.testing.assert_allclose(root @ root.T, np.cov(rows.T, ddof=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scale**2, rows.var(axis=0), rtol=1e-9)
    few, _ = full_root(Moments.of(rows[:7], full=True), 0.0, 1e-3)
    floor = 1e-3 * np.median(rows[:7].var(axis=0))
    assert np.linalg.eigvalsh(few @ few.T)[0] >= 0.999 * floor


def test_the_basis_repeats_and_is_orthonormal() -> None:
    basis = sketch_basis(64, 10, 5)
    np.testing.assert_array_equal(basis, sketch_basis(64, 10, 5))
    np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-12)
    np.testing.assert_array_equal(sketch_basis(8, 9, 0), np.eye(8))
    assert sketch_width(1536, 64) == 80
