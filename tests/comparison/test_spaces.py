"""The spaces of the comparison."""

import numpy as np
import pytest

from corgi.comparison.spaces import Space
from tests.support.compared import unit


def test_own_is_the_space_as_it_is_and_off_centre_moves_everything_one_way() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(500, 64)))
    own, moved = Space("own", 0.8), Space("off_centre", 0.8)
    assert own.image(rows) is rows
    image, text = moved.image(rows), moved.text(rows)
    assert np.allclose(np.linalg.norm(image, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(image.mean(0)) == pytest.approx(0.8, abs=0.03)
    assert abs(image.mean(0) @ text.mean(0)) < 0.3
    assert np.array_equal(image, Space("off_centre", 0.8).image(rows))
