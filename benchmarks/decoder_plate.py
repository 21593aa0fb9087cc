"""The 40 fixed held-out pairs as several decoders paint them from their true embeddings, side by side, to be looked at one by one.

python -m benchmarks.decoder_plate runs/mlp-0 runs/unet-0     (two minutes on two cores; needs those two of `python -m benchmarks.decoders`)
It writes docs/images/decoders-pairs.jpg, and prints for each picture the rank of its own truth among the 40 in the independent space.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from corgi.evaluation.grid import PAIR, GridRow, paint_grid
from corgi.evaluation.judged import FIXED
from corgi.evaluation.judges import Judge, load_judge
from corgi.evaluation.painting import own_pictures, tensor
from corgi.evaluation.stage import Measured, models_in, tables_in
from corgi.evaluation.training_pictures import centred, load_training_pictures
from corgi.settings.models import EvaluateSettings
from corgi.tables.run import Run
from corgi.tables.schema import CREDIT_COLUMN

PLATE = Path(__file__).resolve().parents[1] / "docs" / "images" / "decoders-pairs.jpg"
SCALE = 0.6


def measured_of(folder: str) -> Measured:
    """Load a run that was evaluated, with the settings of its evaluation."""
    run = Run.open(Path(folder))
    stages = run.stages()
    settings = EvaluateSettings.model_validate(run.shards("evaluate")[0].settings["evaluate"])
    return Measured(run.store, models_in(run.store, stages), tables_in(run.store, stages), settings)


def painted_by(measured: Measured, rows: Int[np.ndarray, "rows"]) -> list[Image.Image]:
    """Paint rows from their true embeddings, with the seeds of the evaluation."""
    seeds = [measured.settings.seed + n for n in range(len(rows))]
    return measured.generator.paint(tensor(measured.pictures.image[rows]), seeds)


def ranks(
    judge: Judge,
    centre: Float[np.ndarray, "dim"],
    painted: Sequence[Image.Image],
    true: Sequence[Image.Image],
) -> Int[np.ndarray, "rows"]:
    """Return the rank of each painted picture's own truth among all truths, 1 for the nearest."""
    cosine = centred(judge.features(painted), centre) @ centred(judge.features(true), centre).T
    return 1 + (cosine > np.diag(cosine)[:, None]).sum(1)


def main() -> int:
    """Paint, print the ranks and write the plate."""
    parser = argparse.ArgumentParser(
        description="Show what several decoders paint of the 40 fixed held-out pairs."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, default=PLATE)
    options = parser.parse_args()
    each = [measured_of(folder) for folder in options.runs]
    first = each[0]
    rows = first.groups()[PAIR][:FIXED]
    uids = [first.pictures.uid[row] for row in rows]
    true = own_pictures(first.store, first.shards, uids)
    painted = [painted_by(measured, rows) for measured in each]
    judge = load_judge(first.settings.judge or "efficientnet_lite1", first.generator.towers)
    training = load_training_pictures(first.store, first.shards, judge, 64, first.settings.max_pictures)
    found = [ranks(judge, training.centre, pictures, true) for pictures in painted]
    saved, captions = first.pictures.saved, first.pictures.caption
    for n, row in enumerate(rows):
        print(f"{n + 1:2d}  {captions[row]:60s} {[int(rank[n]) for rank in found]}")
    shown = [
        GridRow(
            PAIR,
            captions[row],
            [pictures[n] for pictures in (true, *painted)],
            saved[row].get(CREDIT_COLUMN) or "",
        )
        for n, row in enumerate(rows)
    ]
    titles = ("true picture", *(Path(folder).name for folder in options.runs))
    half = len(shown) // 2
    sheets = [paint_grid(part, titles) for part in (shown[:half], shown[half:])]
    plate = Image.new("RGB", (sum(sheet.width for sheet in sheets), sheets[-1].height), "white")
    for n, sheet in enumerate(sheets):
        plate.paste(sheet, (n * sheets[0].width, 0))
    plate.resize((round(SCALE * plate.width), round(SCALE * plate.height))).save(options.out, quality=80)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
