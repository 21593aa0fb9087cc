"""Shifted diffusion against its baselines on a recipe's pictures: `python pipelines/compare.py RECIPE [key.path=value ...]`.

Every arm has the same network, data, steps and loss; stages that full.py has finished on the same recipe are reused.
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
    """Return the stages from sources to the comparison; no picture is needed once the vectors are computed."""
    return [*full.to_vectors(recipe), Features(), Curate(), Spaces(), Contest(), Scores(), Comparison()]


if __name__ == "__main__":
    sys.exit(command.main(stages, results.publish, canonical=canonical_url))
