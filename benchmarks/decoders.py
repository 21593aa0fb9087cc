"""A recipe's decoder beside that of release 0.1.0: same pictures, same embeddings, three seeds of the decoder's training each.

python -m benchmarks.decoders [ARM-SEED ...] [--styles]     (about 90 minutes on two cores; needs a finished `make demo`, whose stages it takes over)
With --styles it needs a finished `make styles` and compares the decoder of that recipe, one seed each.

Each training leaves a small file under docs/results/decoders/ or decoders-styles/, and those that are there are not run again: delete one to
repeat it. The tables are written into docs/results.md from all files.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.arms import HOME, Experiment, File, named, show
from benchmarks.comparison_page import table
from corgi.evaluation.metrics import student_interval
from corgi.tables.run import Run

SEEDS = (0, 1, 2)
RELEASE_0_1 = (
    *("autoencoder.kind=linear", "autoencoder.latent_dim=384", "decoder.network=mlp"),
    *("decoder.regression=false", "decoder.width=640", "decoder.depth=4"),
    *("decoder.guidance=1.5", "decoder.guidance_interval=[0,1]"),
    *("decoder.sampler=ddim", "decoder.sample_steps=20", "decoder.training.lr=1.0e-3"),
    *(
        "decoder.training.num_steps=1600",
        "decoder.training.global_batch=256",
        "decoder.training.ema_decay=0.995",
    ),
    *("decoder.training.num_workers=1", "decoder.training.cpus_per_worker=2"),
)
"""The decoder of release 0.1.0 as its demo had it, but in fp32 as everything else here."""
DATA: Mapping[str, tuple[str, ...]] = {
    "decoders": (),
    "decoders-styles": (
        *("--data", "iconify", "--recipe", "pipelines/recipes/styles.yaml"),
        *("--work", "runs/styles-site", "--port", "8057"),
    ),
}
"""Options of demo.py by the name of the experiment."""
ARMS: Mapping[str, tuple[str, ...]] = {
    "mlp": RELEASE_0_1,
    "unet": (),
    "unet-plain": ("decoder.regression=false",),
}
GROUPS, WAY, SPACE = ("TRAIN", "HELD-OUT PAIR", "HELD-OUT CONCEPT"), "from true embedding", "independent"
MEASURES = ("similarity", "R@1", "R@1 among all", "R@1 of the first 40", "R@1 of the first 40 among all")
COPIES = "nearer to the retrieved one"

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One decoder and the seed of its training."""

    decoder: str
    seed: int
    minutes: float = 15.0
    prefix: str = ""
    """What the name of its run begins with."""

    @property
    def name(self) -> str:
        """Return the name of the training and of its file."""
        return f"{self.decoder}-{self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return the settings in which it differs from the demo's recipe."""
        own = f"name={self.prefix}{self.name}", f"decoder.seed={self.seed}", "prior.variants=[shifted]"
        return *own, *ARMS[self.decoder]


DEMO = [Arm(decoder, seed) for seed in SEEDS for decoder in ARMS]
STYLES = [Arm(decoder, 0, 20.0, "styles-") for decoder in ("unet", "mlp")]


class Decoders(Experiment[Arm]):
    """Both decoders over the tables of the demo or of the styles."""

    def __init__(self, name: str = "decoders") -> None:
        """Take the name of the experiment, which decides the data."""
        self.name = name

    def run_arm(self, arm: Arm) -> File:
        """Train and evaluate one decoder over the tables."""
        command = [sys.executable, "pipelines/demo.py", *DATA[self.name], *arm.overrides]
        subprocess.run(command, cwd=HOME, check=True)
        run = Run.open(HOME / "runs" / f"{arm.prefix}{arm.name}")
        metrics = json.loads((run.folder / "metrics.json").read_text())
        found = {
            group: {way: figures_of(metrics, group, way) for way in (WAY, "from prior")}
            for group in GROUPS
            if group in metrics["pictures"]
        }
        return {"arm": arm.decoder, "seed": arm.seed, "overrides": arm.overrides, "figures": found}

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield the table of each group, and for held-out pictures the ratio of the two decoders."""
        found: dict[str, dict[int, Figures]] = {}
        for one in files:
            found.setdefault(one["arm"], {})[one["seed"]] = one["figures"]
        return by_group(found)


def figures_of(metrics: Figures, group: str, way: str) -> dict[str, float]:
    """Return the independent judge's measures of a group, and the share of copies where it was taken."""
    judged = metrics["pictures"][group][SPACE][way]
    copied = metrics["copying"].get(group, {}).get(SPACE, {}).get(way, {})
    chosen = {name: judged[name] for name in MEASURES if name in judged}
    return chosen | {name: value for name, value in copied.items() if name == COPIES}


def by_group(found: Mapping[str, Mapping[int, Figures]]) -> Iterable[str]:
    """Yield the table of each group, and for held-out pictures the ratio of the two decoders."""
    for group in GROUPS:
        rows = [
            [
                arm,
                way,
                str(len(by_seed)),
                *(over_seeds(by_seed, group, way, name) for name in (*MEASURES, COPIES)),
            ]
            for arm, by_seed in found.items()
            for way in (WAY, "from prior")
        ]
        yield f"### {group}, independent space\n"
        yield table(["decoder", "painted", "seeds", *MEASURES, COPIES], rows)
    seeds = sorted(set(found.get("mlp", {})) & set(found.get("unet", {})))
    if seeds:
        ratio = [
            found["unet"][seed]["HELD-OUT PAIR"][WAY]["similarity"]
            / found["mlp"][seed]["HELD-OUT PAIR"][WAY]["similarity"]
            for seed in seeds
        ]
        yield f"Similarity of held-out pairs, unet over mlp, by seed: {', '.join(f'{one:.2f}' for one in ratio)}; mean {between(ratio)}.\n"


def over_seeds(by_seed: Mapping[int, Figures], group: str, way: str, name: str) -> str:
    """Return the mean over seeds and its 95 % interval; nothing where it was not measured."""
    values = [found[group][way][name] for found in by_seed.values() if name in found[group][way]]
    return between(values) if values else ""


def between(values: list[float]) -> str:
    """Return a mean and its 95 % interval (Student), the interval left out for one value."""
    mean = float(np.mean(values))
    low, high = student_interval(np.array(values))
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def main() -> int:
    """Train what is named, by default all that left no file, and write the page after each."""
    parser = argparse.ArgumentParser(description="Compare a recipe's decoder with that of release 0.1.0.")
    parser.add_argument("names", nargs="*", metavar="ARM-SEED", help="trainings (default: all)")
    parser.add_argument("--list", action="store_true", help="list the trainings; run nothing")
    parser.add_argument("--styles", action="store_true", help="the decoder and the tables of make styles")
    told = parser.parse_args()
    arms = named(STYLES if told.styles else DEMO, told.names)
    if told.list:
        show(arms)
    else:
        Decoders("decoders-styles" if told.styles else "decoders").run(arms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
