"""The perceptual loss: the distance between two pictures' features in a frozen network."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Features(nn.Module):
    """The first feature maps of an image tower that has open_clip's `forward_intermediates`."""

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        visual: nn.Module,
        mean: Float[Tensor, "3"],
        std: Float[Tensor, "3"],
        num_maps: int,
        side: int | None,
    ) -> None:
        """Freeze a tower; `side` is the only side it accepts, None if it accepts any."""
        super().__init__()
        self.visual = visual.eval().requires_grad_(False)
        self.num_maps, self.side = num_maps, side
        self.register_buffer("mean", mean[:, None, None].clone(), persistent=False)
        self.register_buffer("std", std[:, None, None].clone(), persistent=False)

    def forward(
        self, pictures: Float[Tensor, "batch 3 side side"]
    ) -> Sequence[Float[Tensor, "batch width h w"]]:
        """Return the feature maps of pictures in 0..1."""
        if self.side is not None and pictures.shape[-1] != self.side:
            pictures = F.interpolate(pictures, self.side, mode="bilinear", antialias=True)
        visual: Any = self.visual
        outputs = visual.forward_intermediates(
            (pictures - self.mean) / self.std,
            indices=list(range(self.num_maps)),
            stop_early=True,
            intermediates_only=True,
        )
        return outputs["image_intermediates"]

    @torch.no_grad()
    def pooled(self, pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch dim"]:
        """Return the means of all feature maps over their planes, concatenated."""
        return torch.cat([features.float().mean((2, 3)) for features in self(pictures)], dim=1)


def feature_distance(
    features: Features,
    pictures: Float[Tensor, "batch 3 side side"],
    targets: Float[Tensor, "batch 3 side side"],
) -> Float[Tensor, "batch"]:
    """Return the mean over maps of |f(picture) - f(target)|^2 / |f(target)|^2; 0 for equal pictures."""
    with torch.no_grad():
        target_maps = features(targets)
    ratios = [
        (a - b).square().flatten(1).mean(1) / b.square().flatten(1).mean(1).clamp(min=1e-8)
        for a, b in zip(features(pictures), target_maps, strict=True)
    ]
    return torch.stack(ratios).mean(0)
