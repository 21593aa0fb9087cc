"""The adversarial loss of an autoencoder: a patch discriminator that is trained together with it (VQGAN, Esser et al. 2021).

Both learn in one backward pass. The generator's term treats the discriminator's weights as constants, and the discriminator's
term sees detached pictures, so each gets the gradient of its own loss alone.
"""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from corgi.models.conv_codec import ConvCodec

_GROUPS = 8


class Verdicts(NamedTuple):
    """Scores of patches, large where the discriminator takes a patch for real."""

    made: Float[Tensor, "batch 1 h w"]
    """Scores of reconstructions, for the codec to learn from."""
    real: Float[Tensor, "batch 1 h w"]
    """Scores of pictures, for the discriminator to learn from."""
    fake: Float[Tensor, "batch 1 h w"]
    """Scores of reconstructions, for the discriminator to learn from."""


class PatchDiscriminator(nn.Module):
    """Stride-2 convolutions: one score per patch (Isola et al. 2017), with group normalisation instead of batch normalisation."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        """Build a level for each width, a multiple of 8; each halves the side."""
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level, width in enumerate(widths):
            layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
            layers += [nn.GroupNorm(_GROUPS, width)] if level else []
            layers.append(nn.LeakyReLU(0.2))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 1 h w"]:
        """Return a score for each patch of pictures in 0..1."""
        return self.layers(2 * pictures - 1)


class AdversarialCodec(nn.Module):
    """A convolutional autoencoder and the discriminator that is trained together with it."""

    def __init__(self, codec: ConvCodec, discriminator: PatchDiscriminator) -> None:
        """Store both."""
        super().__init__()
        self.codec, self.discriminator = codec, discriminator

    def forward(
        self,
        pictures: Float[Tensor, "batch 3 side side"],
        noise: Float[Tensor, "batch channels h h"],
        is_judged: bool,
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor] | None]:
        """Return what the codec returns, and the scores of `Verdicts` if `is_judged`, else None."""
        made, latents = self.codec(pictures, noise)
        if not is_judged:
            return (made, latents), None
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        judged = functional_call(self.discriminator, frozen, (made,))
        scores = judged, self.discriminator(pictures), self.discriminator(made.detach())
        return (made, latents), scores


def generator_loss(verdicts: Verdicts) -> Float[Tensor, ""]:
    """Return - mean D(y), small if reconstructions y are taken for real."""
    return -verdicts.made.mean()


def discriminator_loss(verdicts: Verdicts) -> Float[Tensor, ""]:
    """Return the hinge loss, (mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2."""
    return (F.relu(1 - verdicts.real).mean() + F.relu(1 + verdicts.fake).mean()) / 2


def codec_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the codec alone, without those of a discriminator and without a codebook's training state."""
    prefix = "codec."
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name: value for name, value in state.items() if not name.startswith("quantiser.learner.")}
