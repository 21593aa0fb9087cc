"""The recipes of the training modes differ from the demo's by what makes the mode."""

from pathlib import Path

from corgi.settings.recipe import load

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"


def test_each_mode_is_set_by_its_recipe() -> None:
    demo, semi, free = (
        load(RECIPES / f"{name}.yaml") for name in ("openmoji", "semi-supervised", "language-free")
    )
    assert (demo.curate.caption_share, demo.decoder.pseudo_text_xi) == (1.0, 0.0)
    assert (semi.curate.caption_share, semi.decoder.pseudo_text_xi) == (0.1, 0.0)
    assert (free.curate.caption_share, free.decoder.pseudo_text_xi) == (1.0, 2.65)
