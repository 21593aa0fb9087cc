"""The search index of a run: `python pipelines/index.py runs/openmoji`. Shards that are already indexed are skipped."""

import sys

import full

from corgi.curation.stages import Curate, Features
from corgi.flow import command
from corgi.flow.stage import Stage
from corgi.report import results
from corgi.serving.stages import Index
from corgi.settings.recipe import Recipe
from corgi.sources.identity import canonical_url


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages from sources to the index; in a run that can be served, all but the index are done."""
    return [*full.to_vectors(recipe), Features(), Curate(), Index()]


if __name__ == "__main__":
    sys.exit(command.main(stages, results.publish, canonical=canonical_url))
