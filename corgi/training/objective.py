"""What a model's training must say; the loop does the rest."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from corgi.feeding.feed import Rows
from corgi.feeding.noise import Noise


class Objective(Protocol):
    """Model, rows and loss of one training; built in each worker."""

    def model(self) -> nn.Module:
        """Return fresh weights; the loop seeds torch before."""
        ...

    def rows(self) -> Rows:
        """Return the training rows."""
        ...

    def loss(
        self, model: Any, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the mean loss over the local rows, and further means to log; `model` is called like the module."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return figures on val; called on rank 0 only, with the averaged weights in fp32."""
        ...


@dataclass(frozen=True)
class Shown:
    """What a training shows beside its figures: pictures by name, values whose distribution is of interest, tables."""

    pictures: dict[str, UInt8[np.ndarray, "height width 3"]] = field(default_factory=dict)
    histograms: dict[str, Float[np.ndarray, "values"]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows by name, all of one table with the same keys."""


@runtime_checkable
class Shows(Protocol):
    """An objective that has something to show at each evaluation; called on rank 0 only."""

    def show(self, model: nn.Module) -> Shown:
        """Return pictures and histograms of the averaged weights."""
        ...
