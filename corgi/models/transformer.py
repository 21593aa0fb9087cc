"""Transformer blocks whose keys and values can be reused: pre-norm RMSNorm, SDPA, GEGLU, and optional rotary positions."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch, numpy and scikit-learn have functions without types

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.models.prior_config import FEED_FORWARD_RATIO

ROTARY_PERIOD = 10_000.0


class Memory(NamedTuple):
    """Keys and values of tokens to which later tokens may attend."""

    key: Float[Tensor, "batch heads length head_dim"]
    value: Float[Tensor, "batch heads length head_dim"]

    def joined(self, other: "Memory") -> "Memory":
        """Concatenate both, this one first."""
        return type(self)(torch.cat([self.key, other.key], 2), torch.cat([self.value, other.value], 2))

    def expand(self, batch: int) -> "Memory":
        """Repeat a memory of one row without copying it."""
        return type(self)(self.key.expand(batch, -1, -1, -1), self.value.expand(batch, -1, -1, -1))


class View(NamedTuple):
    """The positions of the new tokens of a pass, what they attend to, and for which of them outputs are computed."""

    allowed: Bool[Tensor, "queries keys"] | None = None
    """To which keys each token of `wanted` attends; None: to all, or with `causal` to those up to itself."""
    causal: bool = False
    angles: Float[Tensor, "length half"] | None = None
    """Rotary angles of the new tokens; None: no rotation."""
    wanted: Int[Tensor, "queries"] | None = None
    """Indices of the tokens whose output is computed; None: all."""


class Attention(nn.Module):
    """Multi-head attention without biases."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the projections."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def memory(
        self, tokens: Float[Tensor, "batch length width"], angles: Float[Tensor, "length half"] | None
    ) -> Memory:
        """Return the keys and values of tokens."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return Memory(rotate(self._split(key), angles), self._split(value))

    def forward(
        self, tokens: Float[Tensor, "batch queries width"], seen: Memory, view: View
    ) -> Float[Tensor, "batch queries width"]:
        """Attend from the view's `wanted` tokens to a memory."""
        angles = view.angles if view.angles is None or view.wanted is None else view.angles[view.wanted]
        query = rotate(self._split(self.query(tokens)), angles)
        attended = F.scaled_dot_product_attention(
            query, seen.key, seen.value, attn_mask=view.allowed, is_causal=view.causal
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _split(self, flat: Tensor) -> Tensor:
        return flat.unflatten(2, (self.heads, -1)).transpose(1, 2)


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
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        """Build both halves."""
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.RMSNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(
        self, tokens: Float[Tensor, "batch length width"], view: View, past: Memory | None = None
    ) -> tuple[Float[Tensor, "batch queries width"], Memory]:
        """Return the view's `wanted` tokens after the block, and the keys and values of all new tokens.

        `past` are the keys and values of earlier tokens to which the new ones attend.
        """
        normed = self.attention_norm(tokens)
        own = self.attention.memory(normed, view.angles)
        seen = own if past is None else past.joined(own)
        if view.wanted is not None:
            tokens, normed = tokens[:, view.wanted], normed[:, view.wanted]
        tokens = tokens + self.attention(normed, seen, view)
        return tokens + self.feed_forward(self.feed_forward_norm(tokens)), own

    def memory(self, tokens: Float[Tensor, "batch length width"], view: View) -> Memory:
        """Return only the keys and values of tokens, for a last block whose outputs are not needed."""
        return self.attention.memory(self.attention_norm(tokens), view.angles)


def rotary_angles(position: Int[Tensor, "length"], head_dim: int) -> Float[Tensor, "length half"]:
    """Angle p * 10000^(-2i/head_dim) of each position and pair of coordinates, float32."""
    exponent = torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32) / head_dim
    return position.float()[:, None] * ROTARY_PERIOD**-exponent


def rotate(
    heads: Float[Tensor, "batch heads length head_dim"], angles: Float[Tensor, "length half"] | None
) -> Float[Tensor, "batch heads length head_dim"]:
    """Rotate each pair of coordinates by its angle, so that scores depend only on distances; None: unchanged."""
    if angles is None:
        return heads
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def packed_mask(prefix: int, suffix: int, levels: int, device: torch.device) -> Bool[Tensor, "length length"]:
    """Block mask of [prefix | suffix 1 | ... | suffix K]: causal, and no suffix attends to another."""
    index = torch.arange(prefix + levels * suffix, device=device)
    level = torch.where(index < prefix, -1, (index - prefix) // suffix)
    same = (level[None, :] == -1) | (level[None, :] == level[:, None])
    return same & (index[None, :] <= index[:, None])
