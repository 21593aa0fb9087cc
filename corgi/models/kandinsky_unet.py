"""A decoder network that is entirely diffusers' own class, conditioned like Kandinsky 2.2's, so that it is exported without code."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has functions without types

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.unet import NORM_GROUPS, UNetSizes


class KandinskyUNet(nn.Module):
    """UNet2DConditionModel with image tokens (`image_proj`) and the image embedding added to the time embedding (`addition_embed_type` image).

    A dropped embedding is replaced by a learned one, which diffusers' pipeline takes as its negative embedding. The
    embedding is standardised by a one-cluster table, which travels with the state dict. The last layer starts at zero.
    """

    def __init__(self, latent_shape: tuple[int, ...], sizes: UNetSizes, embedding_table: ShiftTable) -> None:
        """Build the network; ValueError if the latent is not spatial or its side cannot be halved often enough."""
        if len(latent_shape) != 3 or latent_shape[1] % sizes.reduction or latent_shape[2] % sizes.reduction:
            raise ValueError(
                f"a U-Net of {len(sizes.widths)} levels cannot divide a latent of shape {latent_shape}"
            )
        super().__init__()
        self.latent_shape = latent_shape
        self.embedding_table = ShiftTable.from_state(embedding_table.state_dict())
        self.unet: Any = _build(latent_shape, sizes, embedding_table.dim)
        self.null_embedding = nn.Parameter(torch.zeros(embedding_table.dim))
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch embedding_dim"],
        drop_mask: Bool[Tensor, "batch"],
    ) -> Float[Tensor, "batch latent_dim"]:
        """Predict the parameterisation it is trained for, in float32 at least; t is 1..T, and diffusers counts from 0."""
        dtype = self.null_embedding.dtype
        condition = self.embedding_table.whiten(embedding, torch.zeros_like(t)).to(dtype)
        condition = torch.where(drop_mask[:, None], self.null_embedding, condition)
        planes = latent.to(dtype).view(-1, *self.latent_shape).contiguous(memory_format=torch.channels_last)
        output = self.unet(
            planes, t - 1, None, added_cond_kwargs={"image_embeds": condition}, return_dict=False
        )[0]
        return output.flatten(1).to(torch.promote_types(latent.dtype, torch.float32))


def _build(latent_shape: tuple[int, ...], sizes: UNetSizes, dim: int) -> nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # takes seconds

    attends = [level in sizes.attention for level in range(len(sizes.widths))]
    return UNet2DConditionModel(
        sample_size=latent_shape[1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        down_block_types=tuple("CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attends)),
        block_out_channels=sizes.widths,
        layers_per_block=sizes.layers,
        attention_head_dim=sizes.heads,  # diffusers' name for the number of heads
        cross_attention_dim=sizes.widths[-1],
        encoder_hid_dim=dim,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        use_linear_projection=True,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=NORM_GROUPS,
        dropout=sizes.dropout,
    )
