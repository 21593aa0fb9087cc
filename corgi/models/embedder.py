"""Models that turn captions into image embeddings: a prior, or a baseline in its place."""

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
    """How to sample: the sampler, its number of steps, the guidance scale and the candidates per caption."""

    steps: int = 8
    sampler: SamplerName = "ancestral"
    guidance: float = 1.0
    num_candidates: int = 1


class Embedder(ABC):
    """Turns captions' embeddings into image embeddings."""

    @abstractmethod
    def sample(
        self, text: Embeddings, seeds: Sequence[int], sampling: Sampling, encodings: Encodings | None = None
    ) -> Embeddings:
        """Return one unit-norm image embedding per caption; row i depends only on its caption and seeds[i]."""


class CaptionEmbedder(Embedder):
    """An embedder that draws no noise: a function of the captions' embeddings."""

    def sample(
        self, text: Embeddings, seeds: Sequence[int], sampling: Sampling, encodings: Encodings | None = None
    ) -> Embeddings:
        """Return what `of_text` returns, whatever the seeds."""
        return self.of_text(text)

    @abstractmethod
    def of_text(self, text: Embeddings) -> Embeddings:
        """Return one unit-norm image embedding per caption's embedding."""
