"""Laws of the share of copies: 1 for training pictures, 0 for the truth, whatever the order of the training pictures."""

import numpy as np
import pytest

from corgi.evaluation.copying import (
    CHUNK,
    cosine,
    is_nearer_to,
    is_nearer_to_training,
    nearest,
    pixel_closeness,
)

DRAWS = np.random.default_rng(0)


def units(rows: int, dim: int = 24) -> np.ndarray:
    vectors = DRAWS.normal(size=(rows, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pixels(rows: int, values: int = 48) -> np.ndarray:
    return DRAWS.integers(0, 256, (rows, values)).astype(np.uint8)


SPACES = [pytest.param(units, cosine, id="vectors"), pytest.param(pixels, pixel_closeness, id="pixels")]


@pytest.mark.parametrize(("drawn", "closeness"), SPACES)
def test_law_training_pictures_are_copies_and_the_truth_is_none(drawn, closeness) -> None:
    training, truth = drawn(CHUNK * 2 + 5), drawn(40)
    copied = training[DRAWS.integers(0, len(training), 40)]
    assert is_nearer_to_training(copied, truth, training, closeness).mean() == 1
    assert is_nearer_to_training(truth, truth, training, closeness).mean() == 0
    assert is_nearer_to(copied, truth, copied, closeness).mean() == 1
    assert is_nearer_to(truth, truth, copied, closeness).mean() == 0


@pytest.mark.parametrize(("drawn", "closeness"), SPACES)
def test_law_a_truth_that_is_a_training_picture_too_is_no_copy(drawn, closeness) -> None:
    training = drawn(30)
    assert not is_nearer_to_training(training[:8], training[:8], training, closeness).any()


@pytest.mark.parametrize(("drawn", "closeness"), SPACES)
def test_law_the_order_of_training_pictures_changes_nothing(drawn, closeness) -> None:
    training, truth, painted = drawn(CHUNK + 9), drawn(20), drawn(20)
    order = DRAWS.permutation(len(training))
    rows, value = nearest(painted, training, closeness)
    again, same = nearest(painted, training[order], closeness)
    np.testing.assert_array_equal(order[again], rows)
    np.testing.assert_allclose(same, value)
    np.testing.assert_array_equal(
        is_nearer_to_training(painted, truth, training, closeness),
        is_nearer_to_training(painted, truth, training[order], closeness),
    )


def test_the_nearest_is_that_of_brute_force_over_every_pair() -> None:
    rows, training = pixels(15), pixels(CHUNK * 3 + 1)
    squares = [((row / 255.0 - training / 255.0) ** 2).mean(1) for row in rows]
    found, closeness = nearest(rows, training, pixel_closeness)
    np.testing.assert_array_equal(found, [square.argmin() for square in squares])
    np.testing.assert_allclose(-closeness, [square.min() for square in squares], atol=1e-12)
    vectors, others = units(15), units(CHUNK + 1)
    expected = [max(range(len(others)), key=lambda at: vector @ others[at]) for vector in vectors]
    np.testing.assert_array_equal(nearest(vectors, others, cosine)[0], expected)
