"""The frozen network of the perceptual loss: the first feature maps of a CLIP tower that the run already has."""

import torch
from torch import nn

from corgi.clip.towers import build_model, split_transform
from corgi.models.perceptual import Features
from corgi.settings.clip import TowerRef
from corgi.settings.errors import InputError

_REFUSALS = (AttributeError, AssertionError, RuntimeError, TypeError, ValueError, IndexError)


def tower_features(ref: TowerRef, num_maps: int, image_size: int) -> Features:
    """Return the first feature maps of a tower's image model, on the CPU, for pictures of side `image_size`.

    Supported are towers with open_clip's `forward_intermediates`: timm's trunks, open_clip's ResNets and its transformers.
    A convolutional tower accepts pictures of any side; for a transformer they are resized to its own side.

    Raises:
        InputError: the tower cannot be loaded, or has fewer feature maps.

    """
    model, preprocess, _ = build_model(ref)
    visual = model.get_submodule("visual")
    _, mean, std = split_transform(preprocess)
    is_convolutional = sum(isinstance(module, nn.Conv2d) for module in visual.modules()) > 1
    size = getattr(visual, "image_size", 224)
    side = None if is_convolutional else int(size if isinstance(size, int) else max(size))
    features = Features(visual, mean, std, num_maps, side)
    try:
        with torch.no_grad():
            features(torch.full((1, 3, image_size, image_size), 0.5))
    except _REFUSALS as error:
        raise InputError(
            f"tower {ref.name} ({type(visual).__name__}) does not give {num_maps} feature maps for the perceptual loss: {' '.join(str(error).split())[:200]}; "
            "nothing was trained; lower autoencoder.conv.perceptual_stages, name another autoencoder.conv.perceptual_tower, or set autoencoder.conv.perceptual_weight to 0"
        ) from error
    return features
