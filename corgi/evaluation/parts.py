"""The parts of the measures that a recipe touches, each with a version of its own."""

from corgi.settings.recipe import Recipe


def parts(recipe: Recipe) -> dict[str, int]:
    """Return the version of the references where some captions are withheld from training; no part otherwise."""
    return {"withheld captions": 1} if recipe.curate.caption_share < 1 else {}
