"""What training a convolutional autoencoder costs, counted from the settings alone, without torch."""

from itertools import pairwise

from corgi.names import TRAINED_SPACES
from corgi.settings.models import AutoencoderSettings
from corgi.settings.recipe import Recipe
from corgi.training.cost import TrainingCost, described


def lines(recipe: Recipe) -> list[str]:
    """Return what a plan prints of the training on GPUs; nothing for a training on CPUs, or for a space that is not trained."""
    settings = recipe.autoencoder
    if settings.kind not in TRAINED_SPACES or not settings.training.use_gpu:
        return []
    samples = settings.training.num_steps * settings.training.global_batch
    beside = "the perceptual loss, whose tower computes features of both pictures, is not counted"
    return [*described(autoencoder_cost(settings), samples), beside]


def autoencoder_cost(settings: AutoencoderSettings) -> TrainingCost:
    """Return the parameters, and the FLOPs of one picture through encoder and decoder, two per multiply-add."""
    parameters, products = 0, 0
    for size, width_in, width_out, side in _convolutions(settings):
        weights = size * size * width_in * width_out
        parameters += weights + width_out
        products += weights * side * side
    return TrainingCost(parameters, 2.0 * products, settings.training.activation_checkpointing)


def _convolutions(settings: AutoencoderSettings) -> list[tuple[int, int, int, int]]:
    """Return kernel size, channels in and out, and side of the output of every convolution of encoder and decoder."""
    conv = settings.conv
    channels = len(settings.quantiser.levels) if settings.kind == "vq" else conv.channels
    sides = [settings.image_size // 2 ** (level + 1) for level in range(len(conv.widths))]
    colours, first, last = 12, conv.widths[0], conv.widths[-1]
    found = [(3, colours, first, sides[0]), (3, first, colours, sides[0])]
    found += [(3, last, channels, sides[-1]), (3, channels, last, sides[-1])]
    for width, side in zip(conv.widths, sides, strict=True):
        found += 4 * conv.blocks * [(3, width, width, side)]
    for (width, lower), (_, side) in zip(pairwise(conv.widths), pairwise(sides), strict=True):
        found += [(4, width, lower, side), (1, lower, 4 * width, side)]
    return found
