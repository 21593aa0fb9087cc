"""What a training defines about its model; the loop does the rest."""

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
        """Return a model with initial weights; the loop seeds torch before."""
        ...

    def place(self, device: torch.device) -> None:
        """Move what loss and evaluation read, apart from the model and the batch, to a device."""
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

        Rank 0's figures count. Each rank measures its share of the rows (`own_rows`, `rows_of_all`) where they are many.
        """
        ...


class SecondAverage(NamedTuple):
    """A second average of the weights, kept beside the one that is used."""

    decay: float
    until: int
    """Updates after which it stands still."""


@runtime_checkable
class AveragesTwice(Protocol):
    """An objective that may want a second average of the weights."""

    def second_average(self) -> SecondAverage | None:
        """Return which one; None: none."""
        ...


@runtime_checkable
class Shows(Protocol):
    """An objective that has something to show at each evaluation; called on rank 0 only."""

    def show(self, model: nn.Module) -> Shown:
        """Return pictures and histograms of the averaged weights."""
        ...
