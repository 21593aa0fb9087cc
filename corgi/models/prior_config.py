"""The sizes of a prior and its number of parameters, computed without building it: this module does not import torch."""

from dataclasses import dataclass, replace
from typing import Any, Literal

FEED_FORWARD_RATIO = 4
SUFFIX_TOKENS = ("time", "noisy embedding", "query")
"""Tokens of one noise level, which follow the caption's; an optional cluster token comes between the first two."""


@dataclass(frozen=True)
class PriorConfig:
    """Describe the transformer; `preset` returns the sizes in use."""

    dim: int = 512
    """Dimension of the image embedding z."""
    text_dim: int = 512
    """Dimension of the caption's CLIP text embedding."""
    width: int = 256
    """Width of the token stream; even, a multiple of `heads`."""
    depth: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads per block."""
    num_text_tokens: int = 0
    """Number of word encodings per caption; 0: the network reads none."""
    encoding_dim: int = 1024
    """Dimension of one word encoding; unused if `num_text_tokens` is 0."""
    cluster_token: bool = False
    """Whether the cluster index is a token of its own."""
    causal: bool = True
    """Whether each token attends only to itself and those before it; False: every token attends to all."""
    rotary: bool = False
    """Whether queries and keys are rotated by their position (Su et al. 2021); the paper's code has no positions."""
    standardise: bool = True
    """Whether the network's table whitens its input and unwhitens its output."""
    prediction: Literal["x0", "eps", "v"] = "x0"
    """What the network predicts; only x0 is unwhitened, since eps and v are whitened by definition."""
    choice_clusters: int = 0
    """Number of clusters among which the text -> cluster head chooses; 0: there is no head."""
    learned_shift: bool = False
    """Whether (mu, Sigma) of the network's table are learned with it."""
    activation_checkpointing: bool = False
    """Whether blocks are recomputed in the backward pass instead of stored."""

    def __post_init__(self) -> None:
        """Validate the sizes."""
        sizes = (self.dim, self.text_dim, self.width, self.depth, self.heads, self.encoding_dim)
        if min(sizes) < 1 or min(self.num_text_tokens, self.choice_clusters) < 0:
            raise ValueError("every size of the prior must be positive")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.rotary and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head dimension, got {self.head_dim}")
        if self.prediction not in ("x0", "eps", "v"):
            raise ValueError(f"prediction {self.prediction!r} is not one of x0, eps, v")

    @classmethod
    def preset(cls, name: str, **overrides: object) -> "PriorConfig":
        """Return a named size, with fields overridden; ValueError for a name outside `PRESETS`.

        tiny: CPU demo. base: one small GPU. 1.1B and 1.4B: the released "small" and "large" (docs/method.md).
        """
        if name not in PRESETS:
            raise ValueError(f"prior size {name!r} is not one of {', '.join(PRESETS)}")
        return replace(cls(**PRESETS[name]), **overrides)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def prefix_length(self) -> int:
        """Number of tokens that depend only on the caption: its words and its text embedding."""
        return self.num_text_tokens + 1

    @property
    def suffix_length(self) -> int:
        """Number of tokens of one noise level."""
        return len(SUFFIX_TOKENS) + self.cluster_token

    def num_parameters(self) -> int:
        """Return the number of trained weights, without the shift table."""
        width, dim = self.width, self.dim
        parts = {
            "blocks": self.depth * block_parameters(width),
            "text": _projection(self.text_dim, width),
            "noisy": _projection(dim, width),
            "sinusoids": (1 + self.cluster_token) * 2 * _linear(width, width),
            "head": _linear(width, dim) + _linear(dim, dim),
            "query and null text": 2 * width,
        }
        if self.num_text_tokens:
            parts["words"] = 2 * self.encoding_dim + _projection(self.encoding_dim, width)
            parts["null words"] = self.num_text_tokens * width
        if self.choice_clusters:
            parts["choice"] = _linear(self.text_dim, width) + 2 * width + _linear(width, self.choice_clusters)
        return sum(parts.values())


def block_parameters(width: int) -> int:
    """Return the weights of one block: attention 4 w^2, GEGLU 12 w^2 + 9 w, two norms."""
    hidden = FEED_FORWARD_RATIO * width
    return 4 * width**2 + _linear(width, 2 * hidden) + _linear(hidden, width) + 2 * width


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _projection(inputs: int, width: int) -> int:
    return _linear(inputs, width) + 2 * width + _linear(width, width)


RELEASED: dict[str, Any] = {
    "dim": 1536,
    "text_dim": 1536,
    "width": 2048,
    "heads": 32,
    "num_text_tokens": 80,
    "encoding_dim": 1024,
    "cluster_token": True,
    "standardise": False,
}
"""What the released models have in common: three concatenated towers, T5 words, a cluster token."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 256, "depth": 4, "heads": 4},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "1.1B": {**RELEASED, "depth": 16},
    "1.4B": {**RELEASED, "depth": 20},
}
