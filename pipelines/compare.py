"""Shifted diffusion against its baselines on a recipe's pictures: `python pipelines/compare.py RECIPE [key.path=value ...]`.

Every arm has the same network, data, steps and loss; what is done already by full.py on the same recipe is taken over.
"""

import sys

import full

from corgi.comparison.stages import Comparison, Contest, Scores, Spaces
from corgi.curation.stages import Curate, Features
from corgi.flow import command
from corgi.flow.stage import Stage
from corgi.report import results
from corgi.settings.recipe import Recipe
from corgi.sources.identity import canonical_url


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages from sources to the comparison; no picture is needed after the vectors are there."""
    return [*full.to_vectors(recipe), Features(), Curate(), Spaces(), Contest(), Scores(), Comparison()]


if __name__ == "__main__":
    sys.exit(command.main(stages, results.publish, canonical=canonical_url))
