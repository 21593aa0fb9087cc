"""Feature maps of the run's own towers: of any kind, of any side, frozen, and a distance that has a gradient."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from corgi.latents.tower_features import tower_features
from corgi.models.perceptual import feature_distance
from corgi.settings.errors import InputError
from tests.support.tiny_towers import tiny_tower

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["transformer", "timm"])
def test_pictures_of_any_side_have_maps_and_a_distance_with_a_gradient(
    tmp_path: Path, kind: Literal["transformer", "timm"]
) -> None:
    features = tower_features(tiny_tower(tmp_path, kind), 2, 16)
    generator = torch.Generator().manual_seed(0)
    for side in (16, 32, 48):
        pictures = torch.rand(3, 3, side, side, generator=generator)
        assert len(features(pictures)) == 2
        assert feature_distance(features, pictures, pictures).tolist() == [0, 0, 0]
        other = torch.rand(3, 3, side, side, generator=generator).requires_grad_()
        distance = feature_distance(features, other, pictures)
        assert distance.shape == (3,)
        assert float(distance.detach().min()) > 0
        distance.sum().backward()
        assert other.grad is not None
        assert bool(other.grad.any())
    assert not any(value.requires_grad for value in features.parameters())


def test_the_distance_of_a_picture_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    features = tower_features(tiny_tower(tmp_path, "timm"), 2, 32)
    pictures, others = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = feature_distance(features, pictures, others)
    alone = [feature_distance(features, pictures[n : n + 1], others[n : n + 1])[0] for n in range(4)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_more_maps_than_a_tower_has_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="perceptual_stages") as caught:
        tower_features(tiny_tower(tmp_path, "transformer"), 9, 32)
    assert "\n" not in str(caught.value)
