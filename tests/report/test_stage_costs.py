"""Dollars are written to the cent, and their sum is that of what is written of the stages."""

import pytest

from corgi.report import stage_costs


@pytest.mark.parametrize(
    ("bounds", "written"),
    [
        ([], ""),
        ([(1.0, 1.0)], "1"),
        ([(1.0, 1.0), (2.0, 4.0)], "3 to 5"),
        ([(0.0001, 0.0002)], "under 0.01"),
        ([(0.126, 0.254)], "0.13 to 0.25"),
    ],
)
def test_the_sum_of_intervals_is_written_to_the_cent(bounds: list[tuple[float, float]], written: str) -> None:
    assert stage_costs.between(bounds) == written
