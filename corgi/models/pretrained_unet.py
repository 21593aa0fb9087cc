"""A U-Net like Stable Diffusion's as a decoder network: it reads tokens of the image embedding in place of words."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# diffusers has functions without types

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.condition import CaptionTokens, ImageCondition
from corgi.models.spatial_denoiser import SpatialDenoiser
from corgi.names import UNetConfig

CLASS = "UNet2DConditionModel"
"""The class of diffusers that is supported."""
_FURTHER_INPUTS = ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "num_class_embeds")
"""Keys of a config that require inputs which only the pipelines of other models have."""


class PretrainedUNet(SpatialDenoiser):
    """The U-Net of a config that `check_config` accepts, with random weights until some are loaded.

    A linear layer produces the tokens (four in the released code of Zhou et al. 2022). The vector is added to the time
    embedding as in `corgi.models.unet.UNet`; its layer starts at zero, so that the U-Net starts as it was trained.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        config: UNetConfig,
        embedding_table: ShiftTable,
        num_tokens: int = 4,
        knows_level: bool = False,
        words: tuple[int, int] = (0, 0),
    ) -> None:
        """Build the network, which reads (number, width) of a caption's words; ValueError if it does not fit the latent."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        token_width = check_config(config, latent_shape)
        super().__init__(latent_shape, embedding_table)
        self.config = config
        self.unet: Any = UNet2DConditionModel.from_config({**config, "class_embed_type": "identity"})
        width = self.unet.time_embedding.linear_2.out_features
        tokens = (num_tokens, token_width)
        self.condition = ImageCondition(embedding_table.dim, width, tokens, knows_level)
        if words[0]:
            self.captions = CaptionTokens(*words, tokens[1])
        for layer in (self.condition.vector, self.condition.level):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def on_plane(
        self,
        planes: Float[Tensor, "batch planes side side"],
        t: Int[Tensor, "batch"],
        vector: Float[Tensor, "batch width"],
        tokens: Float[Tensor, "batch tokens token_width"] | None,
    ) -> Float[Tensor, "batch channels side side"]:
        """Apply the U-Net, whose timesteps are counted from 0."""
        return self.unet(planes, t - 1, tokens, class_labels=vector, return_dict=False)[0]


def check_config(config: UNetConfig, latent_shape: tuple[int, ...]) -> int:
    """Check that the config of a diffusers model is supported and fits the latents, and return the width of a token.

    ValueError if it does not; the message says why.
    """
    if config.get("_class_name") != CLASS:
        raise ValueError(f"it is a {config.get('_class_name')}, not a {CLASS}")
    unsupported = [name for name in _FURTHER_INPUTS if config.get(name) is not None]
    if unsupported:
        raise ValueError(
            f"its {unsupported[0]}={config.get(unsupported[0])} requires inputs that Stable Diffusion's U-Net does not have"
        )
    width = config.get("cross_attention_dim")
    if not isinstance(width, int):
        raise ValueError(f"its cross_attention_dim={width} is not a single width")
    if len(latent_shape) != 3:
        raise ValueError(f"it reads spatial latents, but these have the shape {latent_shape}")
    channels = {int(config.get(name, 4)) for name in ("in_channels", "out_channels")}
    if channels != {latent_shape[0]}:
        raise ValueError(f"it has {max(channels)} channels, but the latents have {latent_shape[0]}")
    reduction = 2 ** (len(config.get("block_out_channels", ())) - 1)
    if latent_shape[1] % reduction or latent_shape[2] % reduction:
        raise ValueError(
            f"it halves a side to 1/{reduction}, which latents of {latent_shape[1]} do not allow"
        )
    return width
