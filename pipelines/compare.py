"""Shifted diffusion against its baselines on a recipe's pictures: `python pipelines/compare.py RECIPE [key.path=value ...]`.

Every arm has the same network, data, steps and loss; what is done already by full.py on the same recipe is taken over.
"""

import sys
from typing import Any

import full

from corgi.flow import command
from corgi.flow.dag import Stage
from corgi.report import results
from corgi.sources.embeddings import holds_vectors


def stages(recipe: Any) -> list[Stage]:
    """Return the stages from sources to the comparison; no picture is needed after the vectors are there."""
    made = full.given() if any(map(holds_vectors, recipe.embed.input)) else full.pictures(recipe)
    vectors = [stage for stage in made if stage.name != "tower" or recipe.tower is not None]
    return [*vectors, *full.statistics()[:1], *contest()]


def contest() -> list[Stage]:
    """Return the comparison's own stages."""
    tables = ("download", "embed", "curate")
    return [
        Stage("spaces", "corgi.comparison.spaces:run", ("embed", "curate"), ("compare",)),
        Stage(
            "contest", "corgi.comparison.contest:run", ("embed", "curate", "spaces"), ("compare",), version=2
        ),
        Stage(
            "scores",
            "corgi.comparison.scores:run",
            (*tables, "spaces", "contest"),
            ("compare", "score"),
            version=2,
        ),
        Stage(
            "comparison",
            "corgi.comparison.stage:run",
            (*tables, "spaces", "scores"),
            ("compare", "score"),
            parts="corgi.evaluation.parts:parts",
        ),
    ]


if __name__ == "__main__":
    sys.exit(command.main(stages, results.publish, canonical="corgi.sources.identity:canonical_url"))
