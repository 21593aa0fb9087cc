"""Fill the tables and the grid of docs/results.md from a finished `make demo` or `make styles`: `python -m benchmarks.demo_page [RUN]`.

The run's folder decides which block is filled: runs/openmoji (the default) fills `demo`, runs/styles fills `styles`.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from benchmarks.arms import PAGE, fill_block
from benchmarks.comparison_page import table

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCKS = {"openmoji": "demo", "styles": "styles"}
"""Blocks of the page by the name of the run."""
RANKS = ("R@1", "R@5", "R@10")

Measures = Mapping[str, Any]


def main() -> int:
    """Write the tables and copy the grid."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/openmoji")
    metrics = json.loads((run / "metrics.json").read_text())
    text = "\n".join(parts(metrics))
    if run.name not in BLOCKS:
        print(
            f"{run.name} has no block in {PAGE.name}, which has {', '.join(BLOCKS)}; nothing was written",
            file=sys.stderr,
        )
        return 3
    fill_block(PAGE, BLOCKS[run.name], text)
    grid = DOCS / "images" / f"{run.name}-grid.jpg"
    Image.open(run / "samples" / "grid.png").convert("RGB").save(grid, quality=88)
    print(f"{PAGE.name}: figures of {run}")
    return 0


def parts(metrics: Measures) -> Iterable[str]:
    """Yield each table below its heading."""
    yield f"### The run's CLIP, among {metrics['retrieval']['held-out concepts']} held-out pictures\n"
    directions = ("text to image", "image to text")
    yield table(["", *RANKS], [[name, *ranks(metrics["retrieval"][name])] for name in directions])
    yield "### Priors\n"
    names = ("cosine", "R@1", "R@10", "two_sample_cosine", "frechet")
    yield table(
        ["prior", "steps", "cosine", "R@1", "R@10", "two-sample cosine", "Frechet"],
        [
            [variant, steps, *(number(found.get(name)) for name in names)]
            for variant, by_steps in metrics["prior"].items()
            for steps, found in by_steps.items()
        ]
        + [
            [f"{reference}, no training", "", *(number(found.get(name)) for name in names)]
            for reference, found in metrics["references"].items()
        ]
        + [["truth", "", "", "", "", *map(number, truth(metrics["words"]))]],
    )
    for space in metrics["pictures"]["TRAIN"]:
        yield f"### Painted pictures, judged by the {space} space\n"
        yield table(
            ["set", "picture", "similarity (95 %)", "shuffled control", "R@1 (95 %)"], judged(metrics, space)
        )
    yield "### Copying: share of pictures nearer to a training picture than to the held-out one\n"
    yield table(
        ["set", "nearness in", "picture", "some training picture (95 %)", "the retrieved one (95 %)"],
        copying(metrics),
    )


def judged(metrics: Measures, space: str) -> list[list[str]]:
    """Return a line per set and way of painting, references included."""
    return [
        [group, way, between(found, "similarity"), number(found["shuffled control"]), between(found, "R@1")]
        for group, spaces in metrics["pictures"].items()
        for way, found in spaces[space].items()
    ]


def copying(metrics: Measures) -> list[list[str]]:
    """Return a line per set, measure of nearness and way of painting."""
    return [
        [
            group,
            space,
            way,
            between(found, "nearer to some training picture"),
            between(found, "nearer to the retrieved one"),
        ]
        for group, spaces in metrics["copying"].items()
        for space, ways in spaces.items()
        for way, found in ways.items()
    ]


def truth(words: Measures) -> tuple[float | None, float | None]:
    """Return the two-sample cosine of the truth and the floor of the Frechet distance."""
    return words.get("two-sample cosine of the truth"), words.get("Frechet floor")


def ranks(found: Measures) -> list[str]:
    """Return R@1, R@5 and R@10."""
    return [number(found[name]) for name in RANKS]


def between(found: Measures, name: str) -> str:
    """Write a figure and its interval; nothing where it was not measured."""
    if name not in found:
        return ""
    return (
        f"{number(found[name])} ({number(found[f'{name}, low 95%'])} to {number(found[f'{name}, high 95%'])})"
    )


def number(value: float | None) -> str:
    """Write three digits; nothing where there is no figure."""
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
