"""The part of a training that depends on its model; the loop does the rest."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corgi.feeding.feed import Rows
from corgi.feeding.noise import Noise
from corgi.tracking.tracked_run import Shown


class Objective(Protocol):
    """Model, rows and loss of one training; built in each worker."""

    def model(self) -> nn.Module:
        """Return a model with initial weights; the loop seeds torch before the call."""
        ...

    def place(self, device: torch.device) -> None:
        """Move to a device whatever loss and evaluation read besides the model and the batch."""
        ...

    def rows(self) -> Rows:
        """Return the training rows."""
        ...

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean loss over the local rows, and further means to log; `model` is the module or the engine around it."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return figures on val; a collective that every rank calls with the averaged weights in fp32.

        Only rank 0's figures are used. If the rows are many, each rank measures its share of them (`own_rows`, `rows_of_all`).
        """
        ...


class SecondAverage(NamedTuple):
    """A second average of the weights, kept in addition to the one that is used."""

    decay: float
    until: int
    """Number of updates after which it no longer changes."""


@runtime_checkable
class AveragesTwice(Protocol):
    """An objective that may want a second average of the weights."""

    def second_average(self) -> SecondAverage | None:
        """Return its specification; None for no second average."""
        ...


@runtime_checkable
class Shows(Protocol):
    """An objective that has something to show at each evaluation; called on rank 0 only."""

    def show(self, model: nn.Module) -> Shown:
        """Return pictures and histograms of the averaged weights."""
        ...
