"""Decoder networks at equal CPU seconds: each is trained on one run's latents for as many steps as the budget allows, then judged.

python -m benchmarks.networks [NETWORK ...] [--run RUN]        (seven minutes per network on an idle machine; needs a finished `make demo`)

How many steps fit is computed from two short trainings. Each network leaves a small file under docs/results/networks/, and those that are
there are not run again; the table is written into docs/benchmarks.md.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from benchmarks.arms import HOME, Experiment, File, named, show
from benchmarks.caption_arms import Base, Plan
from benchmarks.comparison_page import table
from corgi.evaluation.copying import cosine, is_nearer_to, nearest
from corgi.evaluation.judged import similarity
from corgi.models.picture_decoder import PictureDecoder
from corgi.settings.recipe import Recipe, load
from corgi.tables.run import Run

BUDGET_CPU_S = 300.0
SHORT, LONG = 20, 100
"""Steps of the two trainings that measure what a start and a step cost."""
PAINTED = 100
"""Pictures of each held-out set."""
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"network": "mlp", "width": 640, "depth": 4, "regression": False},
    "dit": {"network": "dit", "width": 192, "depth": 6, "dit": {"heads": 4, "patch": 1}, "regression": False},
    "unet": {"regression": False},
    "unet-regression": {},
    "unet-neighbours": {"regression": False, "neighbours": 3},
}
"""What each changes of the run's decoder."""
MEASURES = ("similarity", "R@1", "nearer to the retrieved one")


@dataclass(frozen=True)
class Arm:
    """One network."""

    name: str
    minutes: float = 7


@dataclass
class Networks(Experiment[Arm]):
    """Every decoder network on the latents of one run, at equal CPU seconds."""

    run_folder: str
    work: Path
    name = "networks"
    page = HOME / "docs" / "benchmarks.md"

    def run_arm(self, arm: Arm) -> File:
        """Train for the budget and paint; return the figures by set."""
        recipe = changed(load(self.run_folder), NETWORKS[arm.name])
        base = Base(Run.open(self.run_folder), recipe, self.work, Plan(number=PAINTED))
        costs = [trained(base, f"{arm.name}-{steps}", steps)[1] for steps in (SHORT, LONG)]
        steps = steps_within(BUDGET_CPU_S, *costs)
        decoder, seconds = trained(base, arm.name, steps)
        network: Any = decoder.network
        return {
            "network": arm.name,
            "parameters": sum(value.numel() for value in network.parameters()),
            "steps": steps,
            "samples": steps * recipe.decoder.training.global_batch,
            "cpu seconds": round(seconds),
            "figures": {name: judged(base, decoder, name) for name in base.sets},
        }

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield a table with a row per network and held-out set."""
        rows = [
            [
                one["network"],
                *(f"{one[name]:,}" for name in ("parameters", "steps", "samples", "cpu seconds")),
                name,
                *(f"{figures[measure]:.3f}" for measure in MEASURES),
            ]
            for one in sorted(files, key=lambda one: list(NETWORKS).index(one["network"]))
            for name, figures in one["figures"].items()
        ]
        yield table(["network", "parameters", "steps", "samples", "CPU seconds", "set", *MEASURES], rows)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with another decoder."""
    whole = recipe.model_dump(mode="json")
    return Recipe.model_validate({**whole, "decoder": {**whole["decoder"], **changes}})


def trained(base: Base, name: str, steps: int) -> tuple[PictureDecoder, float]:
    """Return a decoder trained for some steps, and the CPU seconds that it took with its start."""
    begun = time.process_time()
    decoder = replace(base, plan=replace(base.plan, decoder_steps=steps)).decoder(name, 0)
    return decoder, time.process_time() - begun


def steps_within(budget_s: float, short_s: float, long_s: float) -> int:
    """Return how many steps a budget allows if a start and a step cost what two trainings of SHORT and LONG steps say.

    Raises:
        ValueError: the longer training was not the dearer one, or a start takes the whole budget.

    """
    step_s = (long_s - short_s) / (LONG - SHORT)
    start_s = short_s - SHORT * step_s
    if step_s <= 0 or start_s >= budget_s:
        raise ValueError(
            f"{SHORT} steps took {short_s:.1f} and {LONG} steps {long_s:.1f} CPU seconds: no number of steps follows for {budget_s:g}"
        )
    return max(1, int((budget_s - start_s) / step_s))


def judged(base: Base, decoder: PictureDecoder, name: str) -> dict[str, float]:
    """Return the measures of pictures painted from the true embeddings of a set, in the judge's space."""
    rows, pictures = base.sets[name], base.pictures
    image = torch.from_numpy(pictures.image[rows]).float()
    settings = base.recipe.decoder
    pixels = decoder.sample(image, range(len(rows)), settings.sample_steps, settings.guidance)
    painted = base.seen([Image.fromarray(np.asarray(one)) for one in pixels])
    copied, _ = nearest(pictures.image[rows], pictures.image[pictures.train], cosine)
    retrieved = base.seen(base.stored(np.asarray(pictures.train)[copied]))
    told = similarity(painted, base.truth[name])
    nearer = is_nearer_to(painted, base.truth[name], retrieved, cosine)
    return {"similarity": told["similarity"], "R@1": told["R@1"], MEASURES[-1]: float(nearer.mean())}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the networks that are named, by default all that left no file; write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="networks by name (default: all)")
    parser.add_argument("--run", default="runs/openmoji", help="run with tables, shift and autoencoder")
    parser.add_argument("--list", action="store_true", help="list the networks; run nothing")
    told = parser.parse_args(argv)
    arms = named([Arm(name) for name in NETWORKS], told.names)
    if told.list:
        show(arms)
        return 0
    work = Path(f"{told.run}/networks").absolute()
    work.mkdir(parents=True, exist_ok=True)
    Networks(told.run, work).run(arms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
