"""The evaluate stage."""

from collections.abc import Sequence

from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask

MEMORISATION = 1
"""Version of the rule by which copies of training pictures are found."""


class Evaluate(Stage):
    """Measures of the models on held-out concepts, and a grid of samples."""

    name, title, version = "evaluate", "Evaluation", 2
    intro = "What the models do, measured. The notes say on which pictures, and what the figures do not show."
    settings = ("evaluate", "prior", "decoder")

    def __init__(self, has_tower: bool = False, upsamplers: Sequence[str] = ()) -> None:
        """Add the tower stage to the inputs if there is one, and the stages of the cascade's upsamplers."""
        super().__init__()
        tower = ("tower",) if has_tower else ()
        models = ("shift", "prior", "autoencoder", "decoder", *upsamplers)
        self.inputs = ("download", *tower, "embed", "curate", *models)

    def run(self, context: Context) -> list[ShardTask]:
        """Commit metrics.json and grid.png of this run."""
        from corgi.evaluation.stage import run

        return run(context)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the version of the references if some captions are withheld from training, and that of the search for copies if it runs."""
        searched = {"memorisation": MEMORISATION} if recipe.evaluate.memorisation else {}
        return {**parts_of_references(recipe), **searched}


def parts_of_references(recipe: Recipe) -> dict[str, int]:
    """Return the version of the references if some captions are withheld from training; empty otherwise."""
    return {"withheld captions": 1} if recipe.curate.caption_share < 1 else {}
