"""The latent spaces by their names in the settings: how each is rebuilt from its committed config and state."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from corgi.models.autoencoder import Autoencoder, LinearAutoencoder
from corgi.models.conv_codec import ConvCodec, ConvConfig
from corgi.models.spatial_autoencoder import Codec, PixelCodec, SpatialAutoencoder
from corgi.names import AutoencoderConfig, LatentSpaceName

Config = Mapping[str, Any]
"""The config committed with the weights: image_size and the codec's own config; empty for the linear space."""


def conv_codec(config: Config) -> Codec:
    """Build the untrained convolutional autoencoder."""
    sizes = tuple(config["widths"]), config["blocks"], config["channels"], tuple(config["levels"])
    return ConvCodec(ConvConfig(*sizes, config.get("num_codes", 0)))


def pretrained_codec(config: AutoencoderConfig) -> Codec:
    """Build an autoencoder of diffusers with random weights."""
    from corgi.models.pretrained_codec import untrained  # diffusers takes seconds to import

    return untrained(config)


CODECS: Mapping[LatentSpaceName, Callable[[Any], Codec]] = {
    "kl": conv_codec,
    "vq": conv_codec,
    "pretrained": pretrained_codec,
    "pixels": lambda config: PixelCodec(),
}
"""For each spatial space, the function that builds its codec from the codec's config."""


def linear(config: Config, state: Mapping[str, Tensor]) -> Autoencoder:
    """Rebuild principal components."""
    return LinearAutoencoder(**state)


def spatial(kind: LatentSpaceName) -> Callable[[Config, Mapping[str, Tensor]], Autoencoder]:
    """Return the function that rebuilds a spatial space of a kind."""

    def rebuilt(config: Config, state: Mapping[str, Tensor]) -> Autoencoder:
        autoencoder = SpatialAutoencoder(CODECS[kind](config["codec"]), config["image_size"])
        autoencoder.load_state_dict(state)
        return autoencoder.eval().requires_grad_(False)

    return rebuilt


LATENT_SPACES: Mapping[LatentSpaceName, Callable[[Config, Mapping[str, Tensor]], Autoencoder]] = {
    "linear": linear,
    **{kind: spatial(kind) for kind in CODECS},
}
"""For each latent space that a recipe can name, the function that rebuilds its autoencoder."""
