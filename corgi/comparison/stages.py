"""The stages of the comparison."""

from corgi.evaluation.stages import parts_of_references
from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.settings.recipe import Recipe
from corgi.tables.store import ShardTask

_TABLES = ("download", "embed", "curate")


class Spaces(Stage):
    """Statistics of the embeddings in every space that priors are compared in."""

    name, title, inputs, settings = "spaces", "Spaces", ("embed", "curate"), ("compare",)
    intro = "The embeddings as they are, and off centre: what the comparison's priors are trained on."

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `statistics` of every space."""
        from corgi.comparison.spaces import run

        return run(context)


class Contest(Stage):
    """Trainings of every arm in every space with every seed."""

    name, title, inputs, settings = "contest", "Contest", ("embed", "curate", "spaces"), ("compare",)
    version = 2
    intro = "The comparison's trainings: same network, data, steps and loss, other (mu, Sigma)."

    def run(self, context: Context) -> list[ShardTask]:
        """Commit each arm's averaged weights."""
        from corgi.comparison.contest import run

        return run(context)


class Scores(Stage):
    """Every trained arm, sampled and measured."""

    name, title, inputs, version = "scores", "Scores", (*_TABLES, "spaces", "contest"), 2
    intro, settings = (
        "Every trained arm sampled with every sampler and number of steps.",
        ("compare", "score"),
    )

    def run(self, context: Context) -> list[ShardTask]:
        """Commit `scores` of every trained arm."""
        from corgi.comparison.scores import run

        return run(context)


class Comparison(Stage):
    """All scores together, and the answers to the pre-registered questions."""

    name, title, inputs = "comparison", "Comparison", (*_TABLES, "spaces", "scores")
    intro = "Shifted diffusion against its baselines, over seeds; differences are paired by seed, intervals are 95 % (Student)."
    settings = ("compare", "score")

    def run(self, context: Context) -> list[ShardTask]:
        """Commit metrics.json, scores.json and one plot per space."""
        from corgi.comparison.stage import run

        return run(context)

    def parts(self, recipe: Recipe) -> dict[str, int]:
        """Return the version of the references if some captions are withheld from training."""
        return parts_of_references(recipe)
