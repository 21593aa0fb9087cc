"""Every recipe is one that this version reads."""

from pathlib import Path

import pytest

from corgi.settings.recipe import load

RECIPES = sorted((Path(__file__).resolve().parents[2] / "pipelines" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read(path: Path) -> None:
    assert load(path).name


def test_the_modes_differ_from_the_demo_by_what_they_are() -> None:
    demo, semi, free = (
        load(RECIPES[0].with_name(f"{name}.yaml"))
        for name in ("openmoji", "semi-supervised", "language-free")
    )
    assert semi.curate.caption_share == 0.1
    assert semi.model_copy(update={"curate": demo.curate, "name": demo.name}) == demo
    assert free.decoder.pseudo_text_xi == 2.65
    same = {"pseudo_text_xi": 0.0, "conditioning_noise": demo.decoder.conditioning_noise}
    assert (
        free.model_copy(update={"decoder": free.decoder.model_copy(update=same), "name": demo.name}) == demo
    )
