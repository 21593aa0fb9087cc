"""The spatial decoder: diffusers' U-Net on latents [channels, height, width], given the image embedding."""

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable

TIME_RATIO = 4
"""Width of the U-Net's time embedding over its first width; fixed by diffusers."""


@dataclass(frozen=True)
class UNetConfig:
    """Describe the U-Net; the defaults fit 32 x 32 latents on one small GPU."""

    channels: int = 4
    """Channels of the standardised latent."""
    size: int = 32
    """Height and width of the latent; divisible by 2 once per level but the last."""
    embedding_dim: int = 512
    """Dimension of the image embedding."""
    widths: tuple[int, ...] = (128, 256, 384)
    """Channels of each level, from full resolution down; multiples of `groups`."""
    layers_per_block: int = 2
    """Residual layers per level."""
    groups: int = 32
    """Groups of the group norms."""

    def __post_init__(self) -> None:
        """Refuse sizes that no U-Net has."""
        if not self.widths or min(self.channels, self.size, self.embedding_dim, *self.widths) < 1:
            raise ValueError("every size of the U-Net must be positive")
        if any(width % self.groups for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of groups {self.groups}")
        if self.size % 2 ** (len(self.widths) - 1):
            raise ValueError(f"size {self.size} cannot be halved {len(self.widths) - 1} times")


class LatentUNet(nn.Module):
    """Predict v of a standardised spatial latent, with the forward signature of `LatentDenoiser`.

    The embedding, standardised by its table, joins the time embedding and modulates every residual layer.
    """

    def __init__(self, config: UNetConfig, embedding_table: ShiftTable | None = None) -> None:
        """Build the network; without a table the embedding is taken as it is."""
        super().__init__()
        table = ShiftTable.ddpm(config.embedding_dim) if embedding_table is None else embedding_table
        if table.dim != config.embedding_dim or table.num_clusters != 1:
            raise ValueError(f"the embedding table must have one cluster of dimension {config.embedding_dim}")
        self.config = config
        self.embedding_table = ShiftTable.from_state(table.state_dict())
        width = TIME_RATIO * config.widths[0]
        self.embedding = nn.Linear(config.embedding_dim, width)
        self.null_embedding = nn.Parameter(torch.zeros(width))
        depth = len(config.widths)
        self.unet = UNet2DModel(
            sample_size=config.size,
            in_channels=config.channels,
            out_channels=config.channels,
            block_out_channels=config.widths,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.groups,
            down_block_types=(*["DownBlock2D"] * (depth - 1), "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * (depth - 1)),
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)  # pyright: ignore[reportArgumentType]

    def forward(
        self,
        latent: Float[Tensor, "batch channels height width"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch embedding_dim"],
        drop_mask: Bool[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Predict v, in float32 at least; `drop_mask` is True where the embedding becomes the learned null."""
        dtype = self.null_embedding.dtype
        standardised = self.embedding_table.whiten(embedding, torch.zeros_like(t))
        image = self.embedding(standardised.to(dtype))
        if drop_mask is not None:
            image = torch.where(drop_mask[:, None], self.null_embedding, image)
        v = self.unet(latent.to(dtype), t, class_labels=image, return_dict=False)[0]
        return v.to(torch.promote_types(latent.dtype, torch.float32))
