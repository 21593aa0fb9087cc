"""The command line that runs a recipe once per seed and shows the measures over all runs in the first run's report."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from corgi.evaluation.over_seeds import over_seeds
from corgi.flow.output import program
from corgi.report import report
from corgi.settings.errors import CorgiError, SettingsError
from corgi.settings.recipe import Recipe, load
from corgi.tables.run import Run

FLOW = Path(__file__).resolve().parents[2] / "pipelines" / "full.py"
SEEDED = ("prior", "decoder")
"""Sections whose seed differs between the runs."""


def main(argv: Sequence[str]) -> int:
    """Run every seed's flow and publish their measures; return the exit code of the first flow that failed, or 0."""
    parser = argparse.ArgumentParser(
        prog=program(), description="Run a recipe once per seed of its `seeds`; finished work is skipped."
    )
    parser.add_argument("recipe", help="YAML file or name of a recipe with `seeds: [0, 1, 2]`")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_args(argv)
    try:
        recipe = load(options.recipe, options.overrides)
        if len(recipe.seeds) < 2:
            raise SettingsError(
                f"seeds={list(recipe.seeds)} are fewer than two; nothing was started; write for example seeds: [0, 1, 2]"
            )
        for seed in recipe.seeds:
            words = [options.recipe, *options.overrides, *overrides_of(recipe, seed)]
            code = subprocess.run([sys.executable, str(FLOW), *words], check=False).returncode
            if code:
                return code
        print(publish(recipe))
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def overrides_of(recipe: Recipe, seed: int) -> list[str]:
    """Return the overrides that turn the recipe into the run of a seed."""
    return [f"name={name_of(recipe, seed)}", *(f"{section}.seed={seed}" for section in SEEDED)]


def name_of(recipe: Recipe, seed: int) -> str:
    """Return the name of a seed's run; for the first seed it is the recipe's own."""
    return recipe.name if seed == recipe.seeds[0] else f"{recipe.name}-seed-{seed}"


def publish(recipe: Recipe) -> str:
    """Note the measures over seeds in the first run, write its report again, and return the report's location.

    Raises:
        InputError, StorageError: a run is missing.

    """
    runs = [Run.open(f"{recipe.root}/{name_of(recipe, seed)}") for seed in recipe.seeds]
    first = runs[0]
    measured = over_seeds([measures_of(run) for run in runs])
    of = first.stages()["evaluate"].path
    first.note(seeds={"seeds": list(recipe.seeds), "evaluate": of, "measures": measured})
    report.write(first)
    return str(first.published("report.html"))


def measures_of(run: Run) -> Mapping[str, object]:
    """Return the committed measures of a run's evaluation."""
    shard = run.shards("evaluate")[0]
    return json.loads(run.store.path(shard, "metrics").read_text())
