"""Judges: the right weights in the right twin, one row per picture, and none that is part of the run it judges."""

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import timm
from PIL import Image
from torch import nn

from corgi.evaluation.judges import JUDGES, Judge, load_judge
from corgi.models.device import ON_CPU
from corgi.names import JudgeName
from corgi.settings.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge("efficientnet_lite1", [])


def test_every_name_that_a_recipe_can_give_is_a_judge() -> None:
    assert set(JUDGES) == set(get_args(JudgeName))


def test_features_are_those_of_each_picture_alone_whatever_stands_beside_it(judge: Judge) -> None:
    draws = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draws.integers(0, 256, (40, 52, 3)).astype(np.uint8)) for _ in range(ON_CPU + 3)
    ]
    found = judge.features(pictures)
    assert found.shape == (ON_CPU + 3, 1280)
    order = draws.permutation(len(pictures))
    again = judge.features([pictures[row] for row in order])
    np.testing.assert_allclose(again, found[order], atol=2e-4)
    assert np.ptp(found, axis=0).max() > 0.1


def test_a_tower_of_the_judges_own_architecture_is_refused_in_one_line() -> None:
    def tower(architecture: str) -> Any:
        visual = nn.Module()
        visual.add_module("trunk", timm.create_model(architecture, pretrained=False, num_classes=0))
        model = nn.Module()
        model.add_module("visual", visual)
        return SimpleNamespace(name="own", model=model)

    load_judge("efficientnet_lite1", [tower("tf_efficientnet_lite0")])
    with pytest.raises(InputError, match="is the network of tower own, so it is not independent") as caught:
        load_judge("efficientnet_lite1", [tower("tf_efficientnet_lite1")])
    assert "\n" not in str(caught.value)
