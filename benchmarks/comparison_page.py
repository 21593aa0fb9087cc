"""Fill the comparison's tables and pictures of docs/results.md from a run of `make compare`: `python -m benchmarks.comparison_page [RUN]`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arms import PAGE, fill_block
from corgi.comparison.stage import Found, Way, best, difference, gathered
from corgi.evaluation.metrics import student_interval
from corgi.tables.run import Run

DOCS = Path(__file__).resolve().parents[1] / "docs"
STEPS = (1, 2, 4, 8, 16, 64)
MECHANISM = (
    ("k16-token", "k16"),
    ("k16-head", "k16"),
    ("k16-soft", "k16"),
    ("k16-soft", "k16-head"),
    ("k16", "standardised"),
)


def main() -> int:
    """Write the tables and copy the plots."""
    run = Run.open(sys.argv[1] if len(sys.argv) > 1 else "runs/openmoji")
    shard = run.shards("comparison")[0]
    metrics = json.loads(run.store.path(shard, "metrics").read_text())
    found = gathered(json.loads(run.store.path(shard, "scores").read_text()))
    parts = [part for space in metrics["truth"] for part in space_parts(space, metrics, found)]
    fill_block(PAGE, "comparison", "\n".join(parts))
    for space in metrics["truth"]:
        data = run.store.path(shard, f"plot_{space}").read_bytes()
        (DOCS / "images" / f"comparison-{space.replace('_', '-')}.png").write_bytes(data)
    print(f"{PAGE.name}: figures of {run.folder}")
    return 0


def space_parts(space: str, metrics: Mapping[str, Any], found: Found) -> Iterable[str]:
    """Yield a space's heading, its plot and its tables."""
    truth, here = metrics["truth"][space], [way for way in found if way.space == space]
    yield (
        f"### In `{space}`: truth two-sample cosine {truth['two_sample_cosine']:.3f}, Frechet floor {truth['frechet']:.3f}, "
        f"{truth['words']} words, {truth['held-out concepts']} held-out concepts\n\n"
        f"![Frechet distance, spread and retrieval by steps](images/comparison-{space.replace('_', '-')}.png)\n"
    )
    yield "Frechet distance / two-sample cosine / R@10 by sampler steps, each at its sampler of smallest Frechet distance, means over seeds:\n"
    rows = [[label, *(by_steps(found, here, label, steps) for steps in STEPS)] for label in labels(here)]
    yield table(["arm", *map(str, STEPS)], rows)
    yield "4 steps against `dalle2` at 64 (question 1), differences with 95 % intervals:\n"
    judged = metrics[f"{space}, 4 steps against dalle2 at 64"]
    names = ("sampler", "frechet", "spread off by", "R@10", "wins")
    yield table(["arm", *names], [[label, *(row[name] for name in names)] for label, row in judged.items()])
    yield "Against `standardised` at the same sampler and steps, by Frechet distance (question 2), number of (sampler, steps):\n"
    control = metrics[f"{space}, against standardised at the same sampler and steps"]
    counts = ("better at", "no difference shown", "worse at")
    yield table(
        ["arm", *counts], [[label, *(str(row[name]) for name in counts)] for label, row in control.items()]
    )
    yield "Where clusters win or lose, differences at 64 steps (question 3):\n"
    yield table(["first minus second", "sampler", "frechet", "cosine"], list(mechanism(found, space)))
    yield "One pass and no training at all (question 4):\n"
    yield table(
        ["", "cosine", "R@1", "R@10", "two-sample cosine", "Frechet"],
        list(one_pass(found, here, metrics["no training"][space])),
    )


def labels(here: Iterable[Way]) -> list[str]:
    """Return the labels of the arms that were sampled in several steps."""
    return list(dict.fromkeys(way.label for way in here if way.arm not in ("regression", "eclipse")))


def by_steps(found: Found, here: Iterable[Way], label: str, steps: int) -> str:
    """Return one cell: the three measures of an arm at its best sampler."""
    way = best(found, [way for way in here if (way.label, way.steps) == (label, steps)])
    if way is None:
        return ""
    mean = {name: float(values.mean()) for name, values in found[way].items()}
    return f"{mean['frechet']:.3f} / {mean['two_sample_cosine']:.2f} / {mean['R@10']:.2f}"


def mechanism(found: Found, space: str) -> Iterable[list[str]]:
    """Yield what separates two arms that differ in one thing, by each sampler."""
    samplers = dict.fromkeys(way.sampler for way in found if way.steps == 64)
    for (first, second), sampler in product(MECHANISM, samplers):
        a, b = (found.get(Way(space, arm, 1, sampler, 64)) for arm in (first, second))
        if a is not None and b is not None:
            yield [
                f"{first} - {second}",
                sampler,
                *(told(difference(a[name], b[name])) for name in ("frechet", "cosine")),
            ]


def one_pass(
    found: Found, here: Iterable[Way], references: Mapping[str, Mapping[str, float]]
) -> Iterable[list[str]]:
    """Yield the one-pass arms with intervals, then the references."""
    for way in here:
        if way.arm in ("regression", "eclipse"):
            names = ("cosine", "R@1", "R@10", "two_sample_cosine", "frechet")
            yield [way.arm, *(spread(found[way][name]) for name in names)]
    for name, row in references.items():
        yield [name, *(f"{row[key]:.3f}" for key in ("cosine", "R@1", "R@10")), "", ""]


def spread(values: np.ndarray) -> str:
    """Write a mean and half the width of its interval."""
    low, high = student_interval(values)
    return f"{values.mean():.3f} ± {(high - low) / 2:.3f}"


def told(found: tuple[float, float, float]) -> str:
    """Write a difference and its interval."""
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(*found)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
