"""Unit embeddings between others: spherical interpolation."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# torch has functions without types

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALLEST_ANGLE = 1e-4
"""Angle in radians below which the chord replaces the arc, whose weights would be quotients of two numbers near zero."""


def slerp(
    a: Float[Tensor, "*batch dim"], b: Float[Tensor, "*batch dim"], share: float
) -> Float[Tensor, "*batch dim"]:
    """Return (sin((1-s) w) a + sin(s w) b) / sin(w), w the angle between unit vectors a and b (Shoemake 1985).

    A unit vector whose angle from a is the share s of w. ValueError for opposite vectors, between which no arc is the
    shortest.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    # computed from both chords: the arc cosine loses half of the digits of a small angle
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    if bool((angle > torch.pi - SMALLEST_ANGLE).any()):
        raise ValueError("opposite embeddings have no shortest arc between them")
    is_short = angle < SMALLEST_ANGLE
    sine = torch.where(is_short, torch.ones_like(angle), angle.sin())
    first = torch.where(is_short, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    second = torch.where(is_short, torch.full_like(angle, share), (share * angle).sin() / sine)
    return F.normalize(first * a + second * b, dim=-1)


def mixed(parts: Float[Tensor, "parts dim"], weights: Sequence[float]) -> Float[Tensor, "dim"]:
    """Mix unit vectors one after the other: each moves the mixture towards itself by its share of the weights so far.

    For two vectors it is `slerp` at w_2 / (w_1 + w_2). ValueError unless there are as many weights as vectors, none negative, the first
    positive.
    """
    if len(weights) != len(parts) or min(weights) < 0 or weights[0] <= 0:
        raise ValueError(f"{len(parts)} embeddings need as many weights, none negative, the first positive")
    mixture, total = parts[0], weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += weight
        mixture = slerp(mixture, part, weight / total)
    return F.normalize(mixture, dim=-1)
