"""Each decoder of the comparison is one that the demo's recipe can have."""

import pytest

from benchmarks.arms import HOME
from benchmarks.decoders import ARMS, Arm
from corgi.settings.recipe import load


@pytest.mark.parametrize("decoder", ARMS)
def test_the_settings_of_an_arm_are_a_recipe(decoder: str):
    recipe = load(
        HOME / "pipelines/recipes/openmoji.yaml", ["plan.input=list.parquet", *Arm(decoder, 2).overrides]
    )
    assert recipe.name == f"{decoder}-2"
    assert recipe.decoder.seed == 2
    assert recipe.decoder.network == decoder.partition("-")[0]
