"""Each decoder of the comparison is one that the demo's recipe can have."""

import pytest

from benchmarks.arms import HOME
from benchmarks.decoders import ARMS, Arm
from corgi.settings.recipe import load


@pytest.mark.parametrize("recipe", ["openmoji", "styles"])
@pytest.mark.parametrize("decoder", ARMS)
def test_the_settings_of_an_arm_are_a_recipe(decoder: str, recipe: str):
    arm = Arm(decoder, 2, prefix="styles-")
    path = HOME / f"pipelines/recipes/{recipe}.yaml"
    found = load(path, ["plan.input=list.parquet", *arm.overrides])
    assert found.name == f"styles-{decoder}-2"
    assert found.decoder.seed == 2
    assert found.decoder.network == decoder.partition("-")[0]
