"""The transformer decoder network: a diffusion transformer (Peebles and Xie 2023) on patches of a latent or of pixels."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has functions without types

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.condition import ImageCondition, Regression
from corgi.models.embedding import sinusoidal_embedding
from corgi.models.spatial_denoiser import SpatialDenoiser
from corgi.models.transformer import Attention, FeedForward, View


@dataclass(frozen=True)
class DiTSizes:
    """Describe the transformer."""

    width: int
    """Width of the token stream; a multiple of 4 for positions in two dimensions, and of `heads`."""
    depth: int
    """Number of blocks."""
    heads: int = 8
    """Number of attention heads."""
    patch: int = 2
    """Side of a patch of the latent that is one token."""


class ConditionedBlock(nn.Module):
    """Attention and feed-forward, each x + gate * f(norm(x) * (1 + scale) + shift) with all three from the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the block; gates start at zero, so it starts as the identity."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = FeedForward(width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, tokens: Float[Tensor, "batch length width"], condition: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch length width"]:
        """Apply the block."""
        first, second = self.modulation(condition)[:, None].chunk(2, dim=-1)
        scale, shift, gate = first.chunk(3, dim=-1)
        modulated = self.attention_norm(tokens) * (1 + scale) + shift
        attended = self.attention(modulated, self.attention.memory(modulated, None), View())
        tokens = tokens + gate * attended
        scale, shift, gate = second.chunk(3, dim=-1)
        return tokens + gate * self.feed_forward(self.feed_forward_norm(tokens) * (1 + scale) + shift)


class DiT(SpatialDenoiser):
    """Reads a plane as a sequence of patches; the embedding is added to the time embedding. The last layer starts at zero."""

    positions: Float[Tensor, "length width"]

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        sizes: DiTSizes,
        embedding_table: ShiftTable,
        knows_level: bool = False,
        neighbours: int = 0,
        low_channels: int = 0,
        regression: bool = False,
    ) -> None:
        """Build the network; ValueError if patches do not tile the latent or the heads do not divide the width.

        It reads the latents of `neighbours` train pictures, `low_channels` planes of a smaller picture, and with
        `regression` the latent predicted from the embedding.
        """
        if len(latent_shape) != 3 or latent_shape[1] != latent_shape[2] or latent_shape[1] % sizes.patch:
            raise ValueError(f"patches of {sizes.patch} do not tile a latent of shape {latent_shape}")
        if sizes.width % sizes.heads or sizes.width % 4:
            raise ValueError(f"width {sizes.width} must be a multiple of 4 and of {sizes.heads} heads")
        width, patch = sizes.width, sizes.patch
        super().__init__(latent_shape, embedding_table)
        self.patch = patch
        planes = (1 + neighbours + regression) * latent_shape[0] + low_channels
        self.input = nn.Linear(planes * patch**2, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = ImageCondition(
            embedding_table.dim, width, knows_level=knows_level, knows_low=low_channels > 0
        )
        if regression:
            self.regression = Regression(embedding_table.dim, math.prod(latent_shape))
        self.blocks = nn.ModuleList(ConditionedBlock(width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, latent_shape[0] * patch**2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.register_buffer("positions", positions(width, latent_shape[1] // patch), persistent=False)

    def on_plane(
        self,
        planes: Float[Tensor, "batch planes side side"],
        t: Int[Tensor, "batch"],
        vector: Float[Tensor, "batch width"],
        tokens: Float[Tensor, "batch tokens token_width"] | None,
    ) -> Float[Tensor, "batch channels side side"]:
        """Apply the transformer to patches of the planes; the embedding has no tokens here."""
        time = self.time(sinusoidal_embedding(t, vector.shape[1]).to(self.output.weight.dtype))
        condition = nn.functional.silu(time + vector)
        patches = self.input(to_patches(planes, self.patch))
        patches = patches + self.positions.to(patches.dtype)
        for block in self.blocks:
            patches = block(patches, condition)
        return from_patches(self.output(self.norm(patches)), self.latent_shape, self.patch)


def positions(width: int, side: int) -> Float[Tensor, "length width"]:
    """Return sines and cosines of the two coordinates of side x side patches, row by row, fp32."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    return get_2d_sincos_pos_embed(width, side, output_type="pt").float()


def to_patches(
    pictures: Float[Tensor, "batch channels side side"], patch: int
) -> Float[Tensor, "batch length values"]:
    """Cut pictures into patch x patch squares, row by row; a square's values are those of its channels in turn, each row by row."""
    return nn.functional.pixel_unshuffle(pictures, patch).flatten(2).mT


def from_patches(
    patches: Float[Tensor, "batch length values"], shape: tuple[int, ...], patch: int
) -> Float[Tensor, "batch channels side side"]:
    """Reassemble pictures from the squares of `to_patches`."""
    rows, columns = shape[1] // patch, shape[2] // patch
    return nn.functional.pixel_shuffle(patches.mT.unflatten(2, (rows, columns)), patch)
