"""Random shift tables in every form, in float64, and the dense Sigma they stand for."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftTable

DIM, CLUSTERS, RANK = 4, 3, 2


def _parts(form: str) -> tuple[ShiftTable, np.ndarray]:
    rng = np.random.default_rng(7)
    mean = rng.normal(size=(CLUSTERS, DIM)) * 2
    scale = rng.uniform(0.5, 2.0, size=(CLUSTERS, DIM))
    sigma = np.stack([np.diag(row**2) for row in scale])
    if form == "diagonal":
        return ShiftTable(torch.tensor(mean), torch.tensor(scale)), sigma
    factor = rng.normal(size=(CLUSTERS, DIM, RANK))
    sigma = sigma + factor @ factor.transpose(0, 2, 1)
    if form == "low_rank":
        return ShiftTable(torch.tensor(mean), torch.tensor(scale), torch.tensor(factor)), sigma
    return ShiftTable.from_covariance(torch.tensor(mean), torch.tensor(sigma)), sigma


@pytest.fixture(params=["diagonal", "low_rank", "full"])
def table_and_sigma(request: pytest.FixtureRequest) -> tuple[ShiftTable, np.ndarray]:
    """A table of three clusters in four dimensions, and its covariances [k, d, d]."""
    return _parts(request.param)


@pytest.fixture
def table(table_and_sigma: tuple[ShiftTable, np.ndarray]) -> ShiftTable:
    """The table alone."""
    return table_and_sigma[0]


@pytest.fixture
def linear() -> Schedule:
    """The shipped schedule."""
    return Schedule.linear()


@pytest.fixture
def draws() -> Callable[[int], Callable[[int], Tensor]]:
    """Make a float64 noise source for a batch of that size: noise(draw) is always the same tensor."""

    def source(batch: int) -> Callable[[int], Tensor]:
        def noise(draw: int) -> Tensor:
            return torch.tensor(np.random.default_rng(1000 + draw).normal(size=(batch, DIM)))

        return noise

    return source
