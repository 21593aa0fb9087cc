"""Linear heads on image vectors: aesthetic, safety and other scores, one column each."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load_file

from corgi.names import ActivationName
from corgi.settings.clip import HeadRef
from corgi.settings.errors import InputError


def sigmoid(logits: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return 1 / (1 + e^-x), in a form that overflows for no x."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


ACTIVATIONS: Mapping[ActivationName, Callable[[Float[np.ndarray, "n"]], Float[np.ndarray, "n"]]] = {
    "none": lambda logits: logits,
    "sigmoid": sigmoid,
}
"""The activations that may follow a head's linear layer."""


class Head:
    """One linear layer from a tower's unit vectors to a score."""

    def __init__(self, ref: HeadRef) -> None:
        """Load the layer.

        Raises:
            InputError: the file is missing, is not safetensors, or has no finite linear layer with one output.

        """
        self.ref = ref
        try:
            tensors = load_file(ref.file)
            self._weight = np.asarray(tensors["weight"], np.float32).reshape(-1)
            self._bias = float(np.asarray(tensors.get("bias", np.zeros(1)), np.float32).reshape(1)[0])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"head {ref.name}: {Path(ref.file).name} cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:150]}); "
                "nothing was embedded; give a local safetensors file with weight [1, d] and bias [1]"
            ) from error
        if not (np.isfinite(self._weight).all() and np.isfinite(self._bias)):
            raise InputError(
                f"head {ref.name}: {Path(ref.file).name} has NaN or infinite weights; nothing was embedded; give another file"
            )

    def check(self, dim: int) -> None:
        """Compare the head's input width with a tower's width.

        Raises:
            InputError: the widths differ.

        """
        if len(self._weight) != dim:
            raise InputError(
                f"head {self.ref.name} takes {len(self._weight)} dimensions, but vectors of tower {self.ref.tower} have {dim}; "
                "nothing was embedded; use the head of this tower"
            )

    def scores(self, vectors: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n"]:
        """Return one score per unit vector."""
        logits = np.asarray(vectors, np.float32) @ self._weight + self._bias
        return ACTIVATIONS[self.ref.activation](logits).astype(np.float32)


def checked_heads(refs: Iterable[HeadRef], dims: Mapping[str, int]) -> list[Head]:
    """Load the heads and check each against the width of its tower.

    Raises:
        InputError: a head cannot be loaded or does not fit its tower.

    """
    heads = [Head(ref) for ref in refs]
    for head in heads:
        head.check(dims[head.ref.tower])
    return heads
