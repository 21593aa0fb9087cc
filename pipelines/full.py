"""The whole pipeline, from a list of URLs to a text-to-image model: `python pipelines/full.py RECIPE [key.path=value ...]`.

This is the only place that names the stages and their order. Finished work is skipped, unfinished work resumes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.budget import plan as budget
from corgi.budget import spending
from corgi.clip.stages import Embed, PrecomputedEmbed, PrecomputedPlan, Tower
from corgi.curation.stages import Curate, Features
from corgi.download.stages import Download, PrecomputedDownload
from corgi.evaluation.stages import Evaluate
from corgi.feeding.stages import Pack
from corgi.flow import command
from corgi.flow.stage import Stage
from corgi.latents.stages import Autoencoder
from corgi.planning.stages import Plan
from corgi.report import results
from corgi.settings.recipe import Recipe
from corgi.shift.stages import Shift
from corgi.sources.embeddings import holds_vectors
from corgi.sources.identity import canonical_url
from corgi.tables.run import Run
from corgi.training.stages import Decoder, Prior, Upsampler


def stages(recipe: Recipe) -> list[Stage]:
    """Return the stages of a recipe in order; each maps committed tables to committed tables."""
    if takes_vectors(recipe):
        return [*to_vectors(recipe), Features(), Curate(), Shift(), Pack(), Prior.of(recipe)]
    return [
        *to_vectors(recipe),
        Features(),
        Curate(),
        Shift(),
        Pack(),
        Prior.of(recipe),
        Autoencoder.of(recipe),
        Decoder.of(recipe),
        *(Upsampler(name) for name in recipe.upsamplers),
        Evaluate(has_tower=recipe.tower is not None, upsamplers=tuple(recipe.upsamplers)),
    ]


def to_vectors(recipe: Recipe) -> list[Stage]:
    """Return the stages from sources to vectors; an `embed.input` is planned and read together with the embed stage."""
    if takes_vectors(recipe):
        return [PrecomputedPlan(run_with="embed"), PrecomputedDownload(run_with="embed"), PrecomputedEmbed()]
    run_with = "embed" if recipe.embed.input else None
    if recipe.tower is None:
        return [Plan(run_with), Download(run_with), Embed()]
    return [Plan(run_with), Download(run_with), Tower(run_with), Embed(has_tower=True)]


def takes_vectors(recipe: Recipe) -> bool:
    """Return whether vectors computed elsewhere are read: then nothing is fetched and no tower runs."""
    return any(map(holds_vectors, recipe.embed.input))


def main(only: str | None = None) -> int:
    """Run the command line; `only` is the stage of a script that runs a single stage."""
    return command.main(stages, told, only, canonical=canonical_url, budget=budget.lines)


def told(run: Run) -> None:
    """Record what the stages cost, and write the report and the other files that are not tables."""
    spending.note(run)
    results.publish(run)


if __name__ == "__main__":
    sys.exit(main())
