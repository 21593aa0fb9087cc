"""The whole pipeline, from a list of URLs to a text-to-image model: `python pipelines/full.py RECIPE [key.path=value ...]`.

This is the only place that names the stages and their order. Finished work is skipped, unfinished work resumes.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow import command
from corgi.flow.dag import Stage
from corgi.report import results
from corgi.sources.embeddings import holds_vectors


def stages(recipe: Any) -> list[Stage]:
    """Return the stages of a recipe in order; each maps committed tables to committed tables."""
    if any(map(holds_vectors, recipe.embed.input)):
        return [*given(), *statistics()]
    tower = ("tower",) if recipe.tower is not None else ()
    listed = [*pictures(recipe), *statistics(), *models(tower)]
    return [stage for stage in listed if stage.name != "tower" or tower]


def pictures(recipe: Any) -> list[Stage]:
    """Return the stages from sources to vectors; an input of embed's own is planned and read along with it."""
    along = "embed" if recipe.embed.input else None
    tower = ("tower",) if recipe.tower is not None else ()
    return [
        planned(along),
        Stage(
            "download",
            "corgi.download.stage:run",
            ("plan",),
            ("download",),
            partition="plan",
            version=4,
            parts="corgi.download.parts:parts",
            amend="corgi.download.revise:revise",
            along=along,
        ),
        Stage("tower", "corgi.clip.train:run", ("download",), ("tower",), along=along),
        Stage(
            "embed",
            "corgi.clip.embed:run",
            ("download", *tower),
            ("embed",),
            partition="download",
            fingerprint="corgi.clip.references:fingerprint",
            parts="corgi.clip.references:parts",
            version=2,
            follow="corgi.clip.embed:follow",
            room="corgi.clip.embed:room",
        ),
    ]


def given() -> list[Stage]:
    """Return the stages from vectors made elsewhere to the same tables: nothing is fetched, no tower runs."""
    return [
        planned("embed", "corgi.clip.vector_inputs:checked_fingerprint"),
        Stage(
            "download",
            "corgi.download.precomputed:run",
            ("plan",),
            ("download",),
            partition="plan",
            amend="corgi.download.precomputed:amend",
            along="embed",
        ),
        Stage(
            "embed",
            "corgi.clip.precomputed:run",
            ("plan", "download"),
            ("embed",),
            partition="download",
            fingerprint="corgi.clip.references:given_fingerprint",
            parts="corgi.clip.references:given_parts",
        ),
    ]


def planned(along: str | None, fingerprint: str = "corgi.planning.fingerprint:fingerprint") -> Stage:
    """Return the stage that gives rows identities, splits and shards."""
    return Stage(
        "plan",
        "corgi.planning.stage:run",
        settings=("plan",),
        version=2,
        fingerprint=fingerprint,
        parts="corgi.planning.fingerprint:parts",
        amend="corgi.planning.revise:revise",
        along=along,
    )


def statistics() -> list[Stage]:
    """Return the stages that need vectors and captions only."""
    return [
        Stage("curate", "corgi.curation.stage:run", ("download", "embed"), ("curate",), version=2),
        Stage(
            "shift",
            "corgi.shift.stage:run",
            ("download", "embed", "curate"),
            ("shift",),
            fingerprint="corgi.clip.references:earlier_shift",
            cost="corgi.shift.memory:plan_lines",
            version=2,
        ),
        Stage(
            "prior",
            "corgi.training.prior:run",
            ("embed", "curate", "shift"),
            ("prior",),
            version=3,
            cost="corgi.training.cost:lines",
            aside="corgi.training.side_by_side:environment",
        ),
    ]


def models(tower: tuple[str, ...]) -> list[Stage]:
    """Return the stages that need pictures too."""
    return [
        Stage("autoencoder", "corgi.training.autoencoder:run", ("download", "curate"), ("autoencoder",)),
        Stage(
            "decoder",
            "corgi.training.decoder:run",
            ("embed", "curate", "autoencoder"),
            ("decoder",),
            version=2,
        ),
        Stage(
            "evaluate",
            "corgi.evaluation.stage:run",
            ("download", *tower, "embed", "curate", "shift", "prior", "autoencoder", "decoder"),
            ("evaluate", "prior", "decoder"),
            version=2,
            parts="corgi.evaluation.parts:parts",
        ),
    ]


def main(only: str | None = None) -> int:
    """Run the command line; `only` is the stage of a script that runs one."""
    return command.main(stages, results.publish, only, canonical="corgi.sources.identity:canonical_url")


if __name__ == "__main__":
    sys.exit(main())
