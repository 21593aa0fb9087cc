"""Parameters and FLOPs of the networks of decoder and upsamplers, computed from the settings alone: neither torch nor diffusers is imported."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from corgi.models.prior_config import FEED_FORWARD_RATIO
from corgi.names import NetworkName
from corgi.settings.decoder import DecoderSettings, DenoiserSettings, UNetSettings, UpsamplerSettings
from corgi.settings.models import AutoencoderSettings

KANDINSKY_TOKENS = 32
"""Tokens of diffusers' `ImageProjection`."""
IMAGE_FEATURES, TEXT_FEATURES = 1280, 384
"""Feature dimensions of a trained tower's frozen trunks."""
_MLP_RATIO = 2
"""`hidden_ratio` of `corgi.models.denoiser.DenoiserConfig`."""


@dataclass(frozen=True)
class Count:
    """Number of parameters, and of multiply-adds per sample."""

    parameters: int = 0
    products: int = 0

    def __add__(self, other: "Count") -> "Count":
        """Return the sum of both."""
        return Count(self.parameters + other.parameters, self.products + other.products)

    def __mul__(self, times: int) -> "Count":
        """Return the count of `times` such parts."""
        return Count(self.parameters * times, self.products * times)


def linear(width_in: int, width_out: int, rows: int = 1, bias: bool = True) -> Count:
    """Count a linear layer applied to `rows` rows."""
    return Count(width_in * width_out + bias * width_out, width_in * width_out * rows)


def convolution(width_in: int, width_out: int, side: int, size: int = 3) -> Count:
    """Count a convolution; `side` is that of its output, `size` that of its kernel."""
    weights = size * size * width_in * width_out
    return Count(weights + width_out, weights * side * side)


def attended(queries: int, keys: int, width: int) -> Count:
    """Count the attention scores and the weighted sums of values."""
    return Count(0, 2 * queries * keys * width)


def scales(width: int) -> Count:
    """Count a normalisation with scale and bias."""
    return Count(2 * width)


def latent_shape(settings: AutoencoderSettings) -> tuple[int, ...] | None:
    """Return the shape of a recipe's latents; None for a pretrained autoencoder, whose files are not read here."""
    if settings.kind == "pretrained":
        return None
    if settings.kind == "linear":
        return (settings.latent_dim,)
    if settings.kind == "pixels":
        return (3, settings.image_size, settings.image_size)
    side = settings.image_size // 2 ** len(settings.conv.widths)
    return (settings.latent_channels, side, side)


def heads_count(embed_dim: int) -> Count:
    """Count `corgi.clip.projection_heads.Heads`: two layers per modality, from the features of the frozen trunks to the joint space."""
    image, text = IMAGE_FEATURES, TEXT_FEATURES
    hidden = (text + embed_dim) // 2
    layers = linear(image, 2 * embed_dim) + linear(2 * embed_dim, embed_dim, bias=False)
    return layers + linear(text, hidden, bias=False) + linear(hidden, embed_dim, bias=False) + Count(1)


def network_count(settings: DenoiserSettings, shape: tuple[int, ...], embedding_dim: int) -> Count:
    """Count the network that the settings name, for latents of a shape and embeddings of a dimension."""
    return NETWORK_COUNTS[settings.network](settings, shape, embedding_dim)


def _planes(settings: DenoiserSettings, channels: int) -> int:
    """Return how many planes a network reads: those of the latent, of the neighbours, of the regression's prediction, and of a smaller picture."""
    if isinstance(settings, DecoderSettings):
        return channels * (1 + settings.neighbours + settings.regression)
    return channels * (1 + isinstance(settings, UpsamplerSettings))


def _regression(settings: DenoiserSettings, shape: tuple[int, ...], dim: int) -> Count:
    """Count `corgi.models.condition.Regression`: its weights are fitted, not trained, so only multiply-adds count."""
    has_regression = isinstance(settings, DecoderSettings) and settings.regression
    return Count(products=dim * math.prod(shape)) if has_regression else Count()


def _kandinsky(dim: int, width: int, token_width: int) -> Count:
    """Count the two projections of the embedding in `corgi.models.kandinsky_unet`, and the null embedding."""
    vector, tokens = linear(dim, width), linear(dim, KANDINSKY_TOKENS * token_width)
    return vector + tokens + scales(width) + scales(token_width) + Count(dim)


def _condition(settings: DenoiserSettings, dim: int, width: int, tokens: tuple[int, int] = (0, 0)) -> Count:
    """Count `corgi.models.condition.ImageCondition`."""
    levels = settings.noise_level_known + isinstance(settings, UpsamplerSettings)
    layers = linear(dim, width) + Count(width) + linear(width, width) * levels
    number, token_width = tokens
    if number:
        layers += linear(dim, number * token_width) + Count(number * token_width)
    return layers


def _words(settings: DenoiserSettings) -> tuple[int, int]:
    """Return number and width of the word encodings that a network reads."""
    return (
        (settings.num_text_tokens, settings.encoding_dim) if isinstance(settings, DecoderSettings) else (0, 0)
    )


def _mlp(settings: DenoiserSettings, shape: tuple[int, ...], dim: int) -> Count:
    width, latent = settings.width, math.prod(shape)
    block = linear(width, 3 * width) + linear(width, _MLP_RATIO * width) + linear(_MLP_RATIO * width, width)
    ends = linear(_planes(settings, latent), width) + scales(width) + linear(width, latent)
    return ends + _time(width, width) + _condition(settings, dim, width) + block * settings.depth


def _time(sinusoids: int, width: int) -> Count:
    return linear(sinusoids, width) + linear(width, width)


def _dit(settings: DenoiserSettings, shape: tuple[int, ...], dim: int) -> Count:
    width, patch = settings.width, settings.dit.patch
    length = (shape[1] // patch) ** 2
    projections = linear(width, width, length, bias=False) * 4 + attended(length, length, width)
    inner = FEED_FORWARD_RATIO * width
    block = (
        projections
        + linear(width, 2 * inner, length)
        + linear(inner, width, length)
        + linear(width, 6 * width)
    )
    values = shape[0] * patch**2
    ends = linear(_planes(settings, shape[0]) * patch**2, width, length) + linear(width, values, length)
    others = _time(width, width) + _condition(settings, dim, width) + scales(width)
    others += _regression(settings, shape, dim)
    return ends + others + block * settings.depth


def _unet(settings: DenoiserSettings, shape: tuple[int, ...], dim: int) -> Count:
    """Count diffusers' UNet2DConditionModel as `corgi.models.unet` builds it."""
    unet, first, last = settings.unet, settings.unet.widths[0], settings.unet.widths[-1]
    words, encoding_dim = _words(settings)
    tokens = KANDINSKY_TOKENS if unet.kandinsky else unet.tokens + words
    levels = [
        _Level(unet, width, shape[1] // 2**level, level, tokens) for level, width in enumerate(unet.widths)
    ]
    ends = convolution(_planes(settings, shape[0]), first, shape[1]) + convolution(first, shape[0], shape[1])
    count = ends + scales(first) + _time(first, 4 * first) + _regression(settings, shape, dim)
    own = unet.tokens if unet.middle_attention or unet.attention else 0
    if unet.kandinsky:
        count += _kandinsky(dim, 4 * first, last)
    else:
        count += _condition(settings, dim, 4 * first, (own, last))
    if words:
        count += linear(encoding_dim, last, words) + Count(words * last)
    count += levels[-1].middle()
    for before, level in pairwise([levels[0], *levels]):
        count += level.down(before.width)
    for level, (after, below) in zip(levels, _around(levels), strict=True):
        count += level.up(after, below)
    for level, lower in pairwise(levels):
        count += convolution(level.width, level.width, lower.side)
        count += convolution(lower.width, lower.width, level.side)
    return count


@dataclass(frozen=True)
class _Level:
    unet: UNetSettings
    width: int
    side: int
    number: int
    tokens: int

    def down(self, width_in: int) -> Count:
        """Count the blocks on the way down; the first one's input has another width."""
        count = self._residual(width_in) + self._residual(self.width) * (self.unet.layers - 1)
        return count + self._attention() * self.unet.layers * (self.number in self.unet.attention)

    def up(self, skipped: int, below: int) -> Count:
        """Count the blocks on the way up: each also reads the skip connection of a block on the way down, the last one that of the level above."""
        layers = self.unet.layers
        widths = [below + self.width, *[2 * self.width] * (layers - 1), self.width + skipped]
        count = sum((self._residual(width) for width in widths), Count())
        return count + self._attention() * (layers + 1) * (self.number in self.unet.attention)

    def middle(self) -> Count:
        """Count the middle: two blocks around attention, or one."""
        if not self.unet.middle_attention:
            return self._residual(self.width)
        return self._residual(self.width) * 2 + self._attention()

    def _residual(self, width_in: int) -> Count:
        width, time = self.width, 4 * self.unet.widths[0]
        count = scales(width_in) + convolution(width_in, width, self.side) + linear(time, 2 * width)
        count += scales(width) + convolution(width, width, self.side)
        return count + (convolution(width_in, width, self.side, 1) if width_in != width else Count())

    def _attention(self) -> Count:
        """Count a transformer block over the plane: self-attention, cross-attention to the tokens, and a GEGLU with a hidden size of four widths."""
        width, length = self.width, self.side**2
        token_width, tokens = self.unet.widths[-1], self.tokens
        square, output = linear(width, width, length, bias=False), linear(width, width, length)
        count = scales(width) * 4 + output * 2 + square * 3 + attended(length, length, width) + output
        count += square + linear(token_width, width, tokens, bias=False) * 2
        count += attended(length, tokens, width) + output
        return count + linear(width, 8 * width, length) + linear(4 * width, width, length)


def _around(levels: list[_Level]) -> list[tuple[int, int]]:
    """Return for each level the width of the skip connection that its last block on the way up reads, and the width of its input from below."""
    above = [levels[0], *levels[:-1]]
    below = [*levels[1:], levels[-1]]
    return [(over.width, under.width) for over, under in zip(above, below, strict=True)]


NETWORK_COUNTS: Mapping[NetworkName, Callable[[DenoiserSettings, tuple[int, ...], int], Count]] = {
    "mlp": _mlp,
    "unet": _unet,
    "dit": _dit,
}
