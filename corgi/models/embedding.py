"""Sinusoidal embedding of a time, a cluster index or a noise level."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def sinusoidal_embedding(
    position: Shaped[Tensor, "batch"], width: int, max_period: float = 10_000.0
) -> Float[Tensor, "batch width"]:
    """[cos(p w_i), sin(p w_i)], w_i = max_period^(-2i/width), in float32; width must be even."""
    if width % 2:
        raise ValueError(f"width must be even, got {width}")
    exponent = torch.arange(width // 2, device=position.device, dtype=torch.float32) / (width // 2)
    angle = position.float()[:, None] * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
