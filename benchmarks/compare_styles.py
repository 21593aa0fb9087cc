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

from benchmarks.arms import HOME, Experiment, File, left_in, named, show
from benchmarks.comparison_page import STEPS, by_steps, labels, table
from corgi.comparison.plot import plot_space
from corgi.comparison.stage import Found, against_baseline, against_control, gathered, lines_of
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
MINUTES: Mapping[str, float] = {"pairs": 10, "pairs-4x": 12, "concepts": 9}
"""At most, per arm, on two idle cores, after the tables. For `pairs-4x` it is what three contestants took."""
AT_ONCE: Mapping[str, int] = {"pairs": 7, "pairs-4x": 2, "concepts": 7}
"""Contestants of one arm, so few that none takes more than 15 minutes. Files of other groups of contestants count too."""
FEW_STEPS = (2, 4)
QUESTION_2, QUESTION_3 = (
    (("k16-soft", "standardised"),),
    (
        ("standardised-raw", "standardised"),
        ("k16-soft-raw", "k16-soft"),
    ),
)
STYLES = "--data iconify --work runs/styles-site --port 8057"


@dataclass(frozen=True)
class Arm:
    """One file: some contestants in one setting with one seed, trained and scored by one run of the comparison."""

    setting: str
    seed: int
    contestants: tuple[str, ...] = CONTESTANTS

    @property
    def name(self) -> str:
        """Return the name of the arm, of its run and of its file."""
        whole = self.contestants == CONTESTANTS
        return f"{self.setting}.{self.seed}" + ("" if whole else f".{self.contestants[0]}")

    @property
    def minutes(self) -> float:
        """Return the minutes announced, on two idle cores, after the tables."""
        return MINUTES[self.setting]


FULL = [
    Arm(setting, seed, CONTESTANTS[first : first + AT_ONCE[setting]])
    for setting, seed in product(SETTINGS, SEEDS)
    for first in range(0, len(CONTESTANTS), AT_ONCE[setting])
]
QUICK = [Arm("pairs", 10, ("dalle2", "standardised", "k16-soft"))]
"""About 15 minutes with the tables; its file stays below runs/ and says nothing."""


@dataclass
class CompareStyles(Experiment[Arm]):
    """The comparison over shared tables, each setting and seed a run of its own."""

    recipe: str
    data: Sequence[str]
    """Options of demo.py that name the data."""
    more: Sequence[str]
    """Further settings of the recipe, as KEY=VALUE."""
    name = "compare-styles"

    def run_arm(self, arm: Arm) -> File:
        """Train and score the contestants of an arm over the shared tables."""
        name = f"compare-styles-{arm.name}"
        told = [
            f"name={name}",
            f"compare.arms=[{','.join(arm.contestants)}]",
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
            "arms": arm.contestants,
            "seed": arm.seed,
            "overrides": told,
            "truth": metrics["truth"][SPACE],
            "no training": metrics["no training"][SPACE],
            "scores": json.loads(run.store.path(shard, "scores").read_text()),
        }

    def has_left(self, arm: Arm, folder: Path) -> bool:
        """Return whether files of an arm's setting and seed hold all of its contestants, however they were put together."""
        known = [one for one in left_in(folder) if (one["setting"], one["seed"]) == (arm.setting, arm.seed)]
        return {*arm.contestants} <= {contestant for one in known for contestant in one["arms"]}

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield the tables of each setting: measures by steps, then the differences that the questions ask for."""
        for setting, of_setting in by_setting(files):
            yield from setting_parts(setting, of_setting)

    def plots(self, files: Sequence[File]) -> Mapping[str, bytes]:
        """Return the plot of each setting."""
        return {
            plot_name(setting): plot_space(
                f"{SPACE}, {setting}", lines_of(found, SPACE), of_setting[0]["truth"]
            )
            for setting, of_setting in by_setting(files)
            if (found := whole_seeds(of_setting))
        }


def plot_name(setting: str) -> str:
    """Return the name of a setting's plot."""
    return f"compare-styles-{setting}.png"


def by_setting(files: Sequence[File]) -> Iterable[tuple[str, list[File]]]:
    """Yield the files of each setting."""
    for setting in SETTINGS:
        if of_setting := [one for one in files if one["setting"] == setting]:
            yield setting, of_setting


def whole_seeds(files: Sequence[File]) -> Found:
    """Return the scores of the seeds that every contestant has, so that all differences are paired."""
    rows = [row for one in files for row in one["scores"]]
    seeds = [{row["seed"] for row in rows if row["arm"] == arm} for arm in {row["arm"] for row in rows}]
    return gathered(row for row in rows if row["seed"] in set.intersection(*seeds))


def setting_parts(setting: str, files: Sequence[File]) -> Iterable[str]:
    """Yield the plot and the tables of one setting."""
    scores, truth = whole_seeds(files), files[0]["truth"]
    seeds = len(next(iter(scores.values()))["frechet"]) if scores else 0
    yield (
        f"### {setting}: truth two-sample cosine {truth['two_sample_cosine']:.3f}, Frechet floor {truth['frechet']:.3f}, "
        f"{truth['words']} words, {truth['held-out concepts']} held out, {seeds} seeds\n"
    )
    if not seeds:
        return
    yield f"![Frechet distance, spread and retrieval by steps](images/{plot_name(setting)})\n"
    steps = [count for count in STEPS if any(way.steps == count for way in scores)]
    rows = [[label, *(by_steps(scores, scores, label, count) for count in steps)] for label in labels(scores)]
    yield "Frechet distance / two-sample cosine / R@10 by sampler steps, each at its sampler of smallest Frechet distance:\n"
    yield table(["arm", *map(str, steps)], rows)
    for few in FEW_STEPS:
        yield f"Question 1: {few} steps against `dalle2` at 64, differences with 95 % intervals:\n"
        judged = against_baseline(scores, SPACE, truth["two_sample_cosine"], few)
        yield _by_label(("sampler", "frechet", "spread off by", "R@10", "wins"), judged)
    for number, pairs in ((2, QUESTION_2), (3, QUESTION_3)):
        yield f"Question {number}: Frechet distance at the same sampler and steps, number of (sampler, steps):\n"
        told = {
            f"{arm} against {control}": against_control(scores, SPACE, control).get(arm, {})
            for arm, control in pairs
        }
        yield _by_label(("better at", "no difference shown", "worse at"), told)


def _by_label(names: Sequence[str], found: Mapping[str, Mapping[str, object]]) -> str:
    return table(
        ["arm", *names],
        [[label, *(str(row.get(name, "")) for name in names)] for label, row in found.items()],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the arms that are named, by default all that left no file; write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ARM", help="arms by name (default: all)")
    parser.add_argument("--quick", action="store_true", help="three contestants, one seed; file below runs/")
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
