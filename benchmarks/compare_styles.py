"""The comparison of priors on six emoji sets, arm by arm: each leaves a small file, and those that are there are not run again.

python -m benchmarks.compare_styles [ARM ...] [--quick] [--list]     (= make compare-styles)

Questions, arms and what counts as an answer are in docs/results.md, written before the first arm ran.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arms import HOME, Experiment, File, named, show
from benchmarks.comparison_page import STEPS, by_steps, labels, table
from corgi.comparison.stage import against_baseline, against_control, gathered
from corgi.tables.run import Run

SPACE = "own"
CONTESTANTS = ("dalle2", "standardised", "standardised-raw", "k16", "k16-soft", "k16-soft-raw", "k64-soft")
SEEDS = (10, 11, 12)
"""No comparison before had them."""
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "pairs": (),
    "pairs-4x": ("compare.width=256",),
    "concepts": ("plan.group_col=concept",),
}
"""Held-out (concept, style) pairs at the demo's size and at four times its weights; held-out concepts at the demo's size."""
MINUTES: Mapping[str, float] = {"pairs": 2.5, "pairs-4x": 5.0, "concepts": 2.5}
"""Announced per arm, on two idle cores, after the tables."""
STYLES = "--data iconify --work runs/styles-site --port 8057"


@dataclass(frozen=True)
class Arm:
    """One file: an arm of the comparison in one setting with one seed."""

    setting: str
    contestant: str
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the arm, of its run and of its file."""
        return f"{self.setting}.{self.contestant}.{self.seed}"

    @property
    def minutes(self) -> float:
        """Return the minutes announced, on two idle cores, after the tables."""
        return MINUTES[self.setting]


FULL = [Arm(*one) for one in product(SETTINGS, CONTESTANTS, SEEDS)]
QUICK = [Arm("pairs", contestant, 10) for contestant in ("dalle2", "standardised", "k16-soft")]
"""About 15 minutes with the tables; its files stay below runs/ and say nothing."""


@dataclass
class CompareStyles(Experiment[Arm]):
    """The comparison's arms over shared tables, each a run of its own."""

    recipe: str
    data: Sequence[str]
    """Options of demo.py that name the data."""
    more: Sequence[str]
    """Further settings of the recipe, as KEY=VALUE."""
    name = "compare-styles"

    def run_arm(self, arm: Arm) -> File:
        """Train and score one arm over the shared tables."""
        name = f"compare-styles-{arm.name}"
        told = [
            f"name={name}",
            f"compare.arms=[{arm.contestant}]",
            f"compare.seed={arm.seed}",
            *SETTINGS[arm.setting],
            *self.more,
        ]
        demo = [sys.executable, "pipelines/demo.py", "--pipeline", "compare", "--recipe", self.recipe]
        subprocess.run([*demo, *self.data, *told], cwd=HOME, check=True)
        roots = [Path(one.removeprefix("root=")) for one in self.more if one.startswith("root=")]
        run = Run.open(next(iter(roots), HOME / "runs") / name)
        shard = run.shards("comparison")[0]
        metrics = json.loads(run.store.path(shard, "metrics").read_text())
        return {
            "setting": arm.setting,
            "arm": arm.contestant,
            "seed": arm.seed,
            "overrides": told,
            "truth": metrics["truth"][SPACE],
            "no training": metrics["no training"][SPACE],
            "scores": json.loads(run.store.path(shard, "scores").read_text()),
        }

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield the tables of each setting: measures by steps, then both questions' differences."""
        for setting in dict.fromkeys(one["setting"] for one in files):
            yield from setting_parts(setting, [one for one in files if one["setting"] == setting])


def setting_parts(setting: str, files: Sequence[File]) -> Iterable[str]:
    """Yield the tables of one setting."""
    scores = gathered(row for one in files for row in one["scores"])
    truth, here = files[0]["truth"], list(scores)
    seeds = sorted({one["seed"] for one in files})
    yield (
        f"### {setting}: truth two-sample cosine {truth['two_sample_cosine']:.3f}, Frechet floor {truth['frechet']:.3f}, "
        f"{truth['words']} words, {truth['held-out concepts']} held out, seeds {seeds}\n"
    )
    steps = [count for count in STEPS if any(way.steps == count for way in here)]
    rows = [[label, *(by_steps(scores, here, label, count) for count in steps)] for label in labels(here)]
    yield "Frechet distance / two-sample cosine / R@10 by sampler steps, each at its sampler of smallest Frechet distance:\n"
    yield table(["arm", *map(str, steps)], rows)
    yield "4 steps against `dalle2` at 64, differences with 95 % intervals:\n"
    judged = against_baseline(scores, SPACE, truth["two_sample_cosine"])
    yield _by_label(("sampler", "frechet", "spread off by", "R@10", "wins"), judged)
    yield "Against `standardised` at the same sampler and steps, by Frechet distance:\n"
    yield _by_label(("better at", "no difference shown", "worse at"), against_control(scores, SPACE))


def _by_label(names: Sequence[str], found: Mapping[str, Mapping[str, object]]) -> str:
    return table(
        ["arm", *names], [[label, *(str(row[name]) for name in names)] for label, row in found.items()]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the arms that are named, by default all that left no file; write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ARM", help="arms by name (default: all)")
    parser.add_argument("--quick", action="store_true", help="three arms, one seed; files below runs/")
    parser.add_argument(
        "--list", action="store_true", help="list the arms with the minutes announced; run nothing"
    )
    parser.add_argument(
        "--recipe", default="pipelines/recipes/compare-styles.yaml", help="recipe of the comparison"
    )
    parser.add_argument("--out", type=Path, help="folder of the files (default: docs/results/compare-styles)")
    parser.add_argument(
        "--demo", default=STYLES, metavar="OPTIONS", help="options of demo.py that name the data, as one word"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of the recipe"
    )
    told = parser.parse_args(argv)
    arms = named(QUICK if told.quick else FULL, told.names)
    if told.list:
        show(arms)
        return 0
    out = told.out or (HOME / "runs" / "compare-styles-quick" if told.quick else None)
    CompareStyles(told.recipe, shlex.split(told.demo), told.set).run(arms, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
