"""The flat decoder: a residual MLP that denoises a picture's latent given its image embedding."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.condition import beside_neighbours, level_embedding
from corgi.models.embedding import sinusoidal_embedding


@dataclass(frozen=True)
class DenoiserConfig:
    """Describe the residual MLP; the defaults are the CPU demo (about 13 M parameters)."""

    latent_dim: int = 384
    """Dimension of the flat, standardised latent."""
    embedding_dim: int = 256
    """Dimension of the image embedding."""
    width: int = 640
    """Width of the residual stream; even."""
    depth: int = 4
    """Number of residual blocks."""
    hidden_ratio: int = 2
    """Hidden width of a block, as a multiple of `width`."""
    knows_level: bool = False
    """Whether the network reads the noise level of the embedding."""
    neighbours: int = 0
    """Number of train pictures whose latents it reads."""

    def __post_init__(self) -> None:
        """Validate the sizes."""
        if min(self.latent_dim, self.embedding_dim, self.width, self.depth, self.hidden_ratio) < 1:
            raise ValueError("every size of the denoiser must be positive")
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even")


class ResidualBlock(nn.Module):
    """x + gate * MLP(norm(x) * (1 + scale) + shift), with (scale, shift, gate) from the condition (adaLN)."""

    def __init__(self, width: int, hidden_ratio: int) -> None:
        """Build the block; gates start at zero, so it starts as the identity."""
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_ratio * width), nn.SiLU(), nn.Linear(hidden_ratio * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, hidden: Float[Tensor, "batch width"], condition: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch width"]:
        """Apply the block."""
        scale, shift, gate = self.modulation(condition).chunk(3, dim=-1)
        return hidden + gate * self.layers(self.norm(hidden) * (1 + scale) + shift)


class LatentDenoiser(nn.Module):
    """Predict v, or another parameterisation, of a standardised latent; convert with `corgi.diffusion.loss.to_x0`.

    The image embedding is standardised by a one-cluster table, which travels with the state dict.
    """

    def __init__(self, config: DenoiserConfig, embedding_table: ShiftTable | None = None) -> None:
        """Build the network; without a table the embedding is not standardised."""
        super().__init__()
        table = ShiftTable.ddpm(config.embedding_dim) if embedding_table is None else embedding_table
        if table.dim != config.embedding_dim or table.num_clusters != 1:
            raise ValueError(f"the embedding table must have one cluster of dimension {config.embedding_dim}")
        self.config = config
        self.embedding_table = ShiftTable.from_state(table.state_dict())
        width = config.width
        self.input = nn.Linear((1 + config.neighbours) * config.latent_dim, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.embedding = nn.Linear(config.embedding_dim, width)
        self.null_embedding = nn.Parameter(torch.zeros(width))
        self.level = nn.Linear(width, width) if config.knows_level else None
        self.blocks = nn.ModuleList(ResidualBlock(width, config.hidden_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, config.latent_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch embedding_dim"],
        drop_mask: Bool[Tensor, "batch"] | None = None,
        level: Float[Tensor, "batch"] | None = None,
        neighbours: Float[Tensor, "batch number latent_dim"] | None = None,
    ) -> Float[Tensor, "batch latent_dim"]:
        """Predict the parameterisation it is trained for, in float32 at least.

        Args:
            latent: noisy standardised latent.
            t: timestep 1..T of the full schedule.
            embedding: image embedding, standardised inside.
            drop_mask: True where the embedding is replaced by the learned null.
            level: share of noise in the embedding; None for no noise.
            neighbours: standardised latents of train pictures; zeros replace them where the embedding is dropped.

        """
        dtype = self.output.weight.dtype
        condition = self._condition(t, embedding, drop_mask, level)
        none_dropped = torch.zeros_like(t, dtype=torch.bool)
        dropped = none_dropped if drop_mask is None else drop_mask
        seen = latent if neighbours is None else beside_neighbours(latent, neighbours, dropped)
        hidden = self.input(seen.to(dtype))
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.output(self.norm(hidden)).to(torch.promote_types(latent.dtype, torch.float32))

    def _condition(
        self, t: Tensor, embedding: Tensor, drop_mask: Tensor | None, level: Tensor | None
    ) -> Tensor:
        """silu(time + embedding or null), [batch, width]."""
        dtype, width = self.output.weight.dtype, self.config.width
        standardised = self.embedding_table.whiten(embedding, torch.zeros_like(t))
        image = self.embedding(standardised.to(dtype))
        if self.level is not None:
            image = image + self.level(level_embedding(level, image))
        if drop_mask is not None:
            image = torch.where(drop_mask[:, None], self.null_embedding, image)
        return nn.functional.silu(self.time(sinusoidal_embedding(t, width).to(dtype)) + image)


def perturb_embedding(
    embedding: Float[Tensor, "batch dim"],
    noise: Float[Tensor, "batch dim"],
    level: Float[Tensor, "batch"],
    table: ShiftTable,
) -> Float[Tensor, "batch dim"]:
    """Mu + sqrt(1-s)(z - mu) + sqrt(s) L noise: an embedding with a share s of noise that has the data's own covariance (eq. 17).

    Makes a decoder tolerant of generated embeddings; `table` has one cluster.
    """
    row = torch.zeros(len(embedding), dtype=torch.int64, device=embedding.device)
    mu, share = table.centre(row, embedding), level.to(embedding.dtype)[:, None]
    return mu + (1 - share).sqrt() * (embedding - mu) + share.sqrt() * table.apply_L(noise, row)
