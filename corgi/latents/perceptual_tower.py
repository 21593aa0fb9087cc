"""Which tower the perceptual loss uses. This module does not import torch, so that finished work is recognised without it."""

from corgi.names import TRAINED_SPACES
from corgi.settings.clip import TRAINED, TowerRef
from corgi.settings.recipe import Recipe


def perceptual_tower(recipe: Recipe) -> TowerRef | str | None:
    """Return the tower of the perceptual loss: one that the recipe names, or `trained` for the run's own; None if no loss needs a tower."""
    settings = recipe.autoencoder
    if settings.kind not in TRAINED_SPACES or not settings.conv.perceptual_weight:
        return None
    wanted = settings.conv.perceptual_tower
    named = [ref for ref in recipe.embed.towers if wanted in (None, ref.name)]
    return named[0] if named and named[0].pretrained != TRAINED else TRAINED
