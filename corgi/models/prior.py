"""The prior: a transformer from a caption's embedding and a noisy z_t to an estimate of z_0."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from corgi.diffusion.shifted import ShiftTable
from corgi.models.embedding import sinusoidal_embedding

FEED_FORWARD_RATIO = 4


@dataclass(frozen=True)
class PriorConfig:
    """Describe the transformer; `preset` gives the sizes in use."""

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
    """Length of the word-level text encodings; 0: the network takes none."""
    encoding_dim: int = 1024
    """Dimension of one word-level encoding; unused when `num_text_tokens` is 0."""
    cluster_token: bool = False
    """Whether the cluster index is a token of its own."""
    causal: bool = True
    """Whether each token sees only those before it."""
    standardise: bool = True
    """Whether input is whitened and output unwhitened by the table given to the network."""
    activation_checkpointing: bool = False
    """Whether blocks are recomputed in the backward pass instead of stored."""

    def __post_init__(self) -> None:
        """Refuse sizes that no transformer has."""
        sizes = (self.dim, self.text_dim, self.width, self.depth, self.heads, self.encoding_dim)
        if min(sizes) < 1 or self.num_text_tokens < 0:
            raise ValueError("every size of the prior must be positive")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Return a named size, with fields overridden; ValueError for a name outside `PRESETS`.

        tiny: CPU demo. base: one small GPU. 1.1B and 1.4B: the released "small" and "large" (docs/method.md).
        """
        if name not in PRESETS:
            raise ValueError(f"prior size {name!r} is not one of {', '.join(PRESETS)}")
        return replace(cls(**PRESETS[name]), **overrides)


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


class Attention(nn.Module):
    """Multi-head self-attention without biases and without positions."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        """Build the projections."""
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Attend over the tokens."""
        batch, length, width = tokens.shape
        split = self.query_key_value(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=self.causal)
        return self.output(attended.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """GEGLU: Linear(a * gelu(b)), with (a, b) two linear maps of the input (Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        """Build the two layers."""
        super().__init__()
        self.expand = nn.Linear(width, 2 * FEED_FORWARD_RATIO * width)
        self.contract = nn.Linear(FEED_FORWARD_RATIO * width, width)

    def forward(self, tokens: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Transform each token."""
        value, gate = self.expand(tokens).chunk(2, dim=-1)
        return self.contract(value * F.gelu(gate))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the stream."""

    def __init__(self, config: PriorConfig) -> None:
        """Build both halves."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width)
        self.attention = Attention(config.width, config.heads, config.causal)
        self.feed_forward_norm = nn.RMSNorm(config.width)
        self.feed_forward = FeedForward(config.width)

    def forward(self, tokens: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Apply the block."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.feed_forward(self.feed_forward_norm(tokens))


def _project(inputs: int, width: int) -> nn.Sequential:
    """Map an embedding into the token stream."""
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width))


def _project_sinusoid(width: int) -> nn.Sequential:
    """Map a sinusoidal embedding into the token stream."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


class Prior(nn.Module):
    """Estimate z_0 from [text encodings | text | time | cluster | z_t | learned query]; read at the query.

    With `standardise` the network sees L^-1 (z_t - mu) and answers mu + L (its output), both in float32, so half
    precision inside never holds z_t near mu. A table with one cluster standardises globally, one with k centres
    each sample on its own cluster. It is a buffer of the network and travels with its state dict.
    """

    def __init__(self, config: PriorConfig, table: ShiftTable | None = None) -> None:
        """Build the network; ValueError when `standardise` has no table of dimension `dim`."""
        super().__init__()
        if config.standardise and table is None:
            raise ValueError("a standardised prior needs a shift table")
        if table is not None and table.dim != config.dim:
            raise ValueError(f"the shift table has dimension {table.dim}, the prior {config.dim}")
        self.config = config
        self.table = ShiftTable.from_state(table.state_dict()) if config.standardise and table else None
        width = config.width
        self.text = _project(config.text_dim, width)
        self.time = _project_sinusoid(width)
        self.cluster = _project_sinusoid(width) if config.cluster_token else None
        self.noisy = _project(config.dim, width)
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.null_text = nn.Parameter(torch.randn(width) * width**-0.5)
        self.encodings, self.null_encodings = None, None
        if config.num_text_tokens:
            self.encodings = nn.Sequential(
                nn.LayerNorm(config.encoding_dim), _project(config.encoding_dim, width)
            )
            self.null_encodings = nn.Parameter(torch.randn(config.num_text_tokens, width) * width**-0.5)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        last = nn.Linear(config.dim, config.dim)
        # A zero last layer makes the untrained network answer mu, the best constant, instead of noise.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(width, config.dim), nn.SiLU(), last)

    def forward(
        self,
        z_t: Float[Tensor, "batch dim"],
        t: Int[Tensor, "batch"],
        text: Float[Tensor, "batch text_dim"],
        cluster: Int[Tensor, "batch"],
        encodings: Float[Tensor, "batch words encoding_dim"] | None = None,
        drop_mask: Bool[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Estimate z_0, in float32 at least.

        Args:
            z_t: noisy embedding.
            t: timestep 1..T of the full schedule.
            text: CLIP text embedding of the caption.
            cluster: cluster index; read when the network has a cluster token or a table of several clusters.
            encodings: word encodings when the network takes them; all-zero words are padding.
            drop_mask: True where the caption is replaced by the learned null (classifier-free guidance).

        """
        tokens = self._tokens(z_t, t, text, cluster, encodings, drop_mask)
        for block in self.blocks:
            if self.config.activation_checkpointing and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        output = self.head(tokens[:, -1]).to(torch.promote_types(z_t.dtype, torch.float32))
        return output if self.table is None else self.table.unwhiten(output, self._table_row(cluster))

    def _tokens(
        self,
        z_t: Tensor,
        t: Tensor,
        text: Tensor,
        cluster: Tensor,
        encodings: Tensor | None,
        drop_mask: Tensor | None,
    ) -> Tensor:
        """Build the token sequence [batch, length, width] in the dtype of the weights."""
        dtype = self.query.dtype
        noisy = z_t if self.table is None else self.table.whiten(z_t, self._table_row(cluster))
        dropped = torch.zeros_like(t, dtype=torch.bool) if drop_mask is None else drop_mask
        caption = torch.where(dropped[:, None], self.null_text, self.text(text.to(dtype)))
        tokens = [caption, self.time(sinusoidal_embedding(t, self.config.width).to(dtype))]
        if self.cluster is not None:
            tokens.append(self.cluster(sinusoidal_embedding(cluster, self.config.width).to(dtype)))
        tokens += [self.noisy(noisy.to(dtype)), self.query.expand(len(t), -1)]
        sequence = torch.stack(tokens, dim=1)
        words = self._words(encodings, dropped)
        return sequence if words is None else torch.cat([words, sequence], dim=1)

    def _words(self, encodings: Tensor | None, dropped: Tensor) -> Tensor | None:
        """Project the word encodings; padding and dropped captions become learned nulls."""
        if self.encodings is None or self.null_encodings is None:
            return None
        if encodings is None or encodings.shape[1] != self.config.num_text_tokens:
            raise ValueError(f"the prior takes {self.config.num_text_tokens} word encodings per caption")
        absent = (encodings == 0).all(dim=-1) | dropped[:, None]
        words = self.encodings(encodings.to(self.query.dtype))
        return torch.where(absent[..., None], self.null_encodings, words)

    def _table_row(self, cluster: Tensor) -> Tensor:
        """Row of the table for each sample: its cluster, or the only row."""
        several = self.table is not None and self.table.num_clusters > 1
        return cluster if several else torch.zeros_like(cluster)
