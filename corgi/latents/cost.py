"""The cost of a latent space, computed from the settings only, without torch: training its autoencoder and encoding the latents."""

import math
from itertools import pairwise

from corgi.names import TRAINED_SPACES
from corgi.settings.models import AutoencoderSettings
from corgi.settings.recipe import Recipe
from corgi.training.cost import PLANNED_GPUS, UTILISATION, TrainingCost, described
from corgi.training.network_cost import latent_shape

Convolution = tuple[int, int, int, int]
"""Kernel size, input channels, output channels, and side of the output."""
LATENT_BYTES = 2.0
"""Latents are stored as half floats."""


def lines(recipe: Recipe) -> list[str]:
    """Return the lines that a plan prints about training on GPUs and about latents encoded on GPUs; none for CPUs."""
    settings = recipe.autoencoder
    printed: list[str] = []
    if settings.kind in TRAINED_SPACES and settings.training.use_gpu:
        samples = settings.training.num_steps * settings.training.global_batch
        printed += described(autoencoder_cost(settings), samples)
        printed.append(
            "the perceptual loss, whose tower computes features of both pictures, and a discriminator are not counted"
        )
    return printed + _latent_lines(settings)


def _latent_lines(settings: AutoencoderSettings) -> list[str]:
    """Return the storage of a million latents, and one GPU's hours for encoding them if the encoder's FLOPs are known."""
    shape = latent_shape(settings)
    if not settings.gpus_per_actor or shape is None:
        return []
    room = f"latents: {LATENT_BYTES * math.prod(shape) / 1e3:,.1f} GB per million pictures"
    if settings.kind not in TRAINED_SPACES:
        return [room]
    cost = TrainingCost(0, encoder_flops(settings))
    hours = ", ".join(
        f"{gpu} {1e6 * cost.forward_flops / cost.flops_per_s(gpu) / 3600:.2g} h" for gpu in PLANNED_GPUS
    )
    return [
        f"{room}, {cost.forward_flops / 1e9:.3g} GFLOP per picture; on one GPU at {UTILISATION:.0%} of peak {hours}"
    ]


def autoencoder_cost(settings: AutoencoderSettings) -> TrainingCost:
    """Return the number of parameters, and the FLOPs of one picture through encoder and decoder, two per multiply-add."""
    convolutions = [*_encoder(settings), *_decoder(settings)]
    parameters = sum(size * size * channels * out + out for size, channels, out, _ in convolutions)
    return TrainingCost(parameters, _flops(convolutions), settings.training.activation_checkpointing)


def encoder_flops(settings: AutoencoderSettings) -> float:
    """Return the FLOPs of one picture through the encoder only."""
    return _flops(_encoder(settings))


def _flops(convolutions: list[Convolution]) -> float:
    return 2.0 * sum(size**2 * channels * out * side**2 for size, channels, out, side in convolutions)


def _encoder(settings: AutoencoderSettings) -> list[Convolution]:
    conv, sides = settings.conv, _sides(settings)
    found = [(3, 12, conv.widths[0], sides[0]), (3, conv.widths[-1], settings.latent_channels, sides[-1])]
    found += _blocks(settings)
    steps = zip(pairwise(conv.widths), pairwise(sides), strict=True)
    return found + [(4, width, lower, side) for (width, lower), (_, side) in steps]


def _decoder(settings: AutoencoderSettings) -> list[Convolution]:
    conv, sides = settings.conv, _sides(settings)
    found = [(3, conv.widths[0], 12, sides[0]), (3, settings.latent_channels, conv.widths[-1], sides[-1])]
    found += _blocks(settings)
    steps = zip(pairwise(conv.widths), pairwise(sides), strict=True)
    return found + [(1, lower, 4 * width, side) for (width, lower), (_, side) in steps]


def _blocks(settings: AutoencoderSettings) -> list[Convolution]:
    levels = zip(settings.conv.widths, _sides(settings), strict=True)
    return [(3, width, width, side) for width, side in levels for _ in range(2 * settings.conv.blocks)]


def _sides(settings: AutoencoderSettings) -> list[int]:
    return [settings.image_size // 2 ** (level + 1) for level in range(len(settings.conv.widths))]
