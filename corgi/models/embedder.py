"""What turns captions into image embeddings: a prior, or a baseline that stands in its place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from corgi.names import SamplerName

Embeddings = Float[Tensor, "batch dim"]
Encodings = Float[Tensor, "batch words encoding_dim"]


@dataclass(frozen=True)
class Sampling:
    """How to sample: the sampler, its steps, guidance scale and candidates per caption."""

    steps: int = 8
    sampler: SamplerName = "ancestral"
    guidance: float = 1.0
    num_candidates: int = 1


class Embedder(ABC):
    """A source of image embeddings of captions."""

    @abstractmethod
    def sample(
        self, text: Embeddings, seeds: Sequence[int], sampling: Sampling, encodings: Encodings | None = None
    ) -> Embeddings:
        """Return one unit-norm image embedding per caption; row i depends on its caption and seeds[i] alone."""


class CaptionEmbedder(Embedder):
    """A source without a draw: a function of the captions' embeddings."""

    def sample(
        self, text: Embeddings, seeds: Sequence[int], sampling: Sampling, encodings: Encodings | None = None
    ) -> Embeddings:
        """Return what `of_text` returns, whatever the seeds."""
        return self.of_text(text)

    @abstractmethod
    def of_text(self, text: Embeddings) -> Embeddings:
        """Return one unit-norm image embedding per caption's embedding."""
