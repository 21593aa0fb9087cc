"""Planted copies of a run's training pictures, and held-out pictures that are none: which of them the search for copies finds.

python -m benchmarks.memorisation RUN          (a run whose autoencoder and decoder are trained; it writes nothing there)
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from benchmarks.figures import Figures
from corgi.evaluation.copy_search import PaintedSet
from corgi.evaluation.measured import models_in, tables_in, trained_concepts
from corgi.evaluation.memorisation import share_interval
from corgi.evaluation.painting import own_pictures, round_trip
from corgi.evaluation.stage import Measured
from corgi.feeding.pictures import at_side
from corgi.settings.models import EvaluateSettings
from corgi.tables.run import Run
from corgi.tables.schema import Split

QUALITY = 75
"""Of the JPEG that a planted picture is saved as."""


def opened(folder: str) -> Measured:
    """Load a run as its evaluation does."""
    run = Run.open(folder)
    stages = {
        name: run.store.read_stage(entry.path) for name, entry in run.stages().items() if name != "evaluate"
    }
    settings = json.loads(Path(folder, "run.json").read_text())["recipe"]["evaluate"]
    return Measured(
        run.store,
        models_in(run.store, stages),
        tables_in(run.store, stages),
        EvaluateSettings.model_validate(settings),
    )


def changed(measured: Measured, pictures: Sequence[Image.Image]) -> dict[str, list[Image.Image]]:
    """Return pictures at the decoder's side: as they are, through JPEG, and through the autoencoder."""
    generator = measured.generator
    small = [
        at_side(picture.convert("RGB"), generator.decoder.autoencoder.image_size) for picture in pictures
    ]
    return {
        "as is": small,
        "JPEG": [jpeg(picture) for picture in small],
        "autoencoder": round_trip(generator, small),
    }


def jpeg(picture: Image.Image) -> Image.Image:
    """Return a picture that was saved as JPEG."""
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=QUALITY)
    return Image.open(body).convert("RGB")


def others(measured: Measured) -> tuple[Int[np.ndarray, "rows"], Bool[np.ndarray, "rows"]]:
    """Return the held-out rows that set no threshold, and whether the concept of each was trained on in another picture."""
    pictures = measured.pictures
    held_out = np.flatnonzero(np.array(pictures.split) != Split.TRAIN.value)
    rows = np.setdiff1d(held_out, measured.held_out)
    column = measured.settings.concept_col
    if column is None:
        return rows, np.zeros(len(rows), bool)
    trained = trained_concepts(measured.store, measured.shards, column)
    return rows, np.array([pictures.saved[row].get(column) in trained for row in rows])


def table(figures: Figures, measured: Measured, number: int) -> None:
    """Plant so many copies, and all held-out pictures that set no threshold; print which are called copies."""
    begun = time.process_time()
    search = measured.copy_search()
    figures.add("memorisation/search", time.process_time() - begun, "CPU-s", "<=15")
    planted = np.random.default_rng(0).choice(len(search.uid), min(number, len(search.uid)), replace=False)
    rows, is_pair = others(measured)
    uids = [measured.pictures.uid[row] for row in rows]
    copies = changed(measured, search.pictures(planted.tolist()))
    held_out = changed(measured, own_pictures(measured.store, measured.shards, uids))
    found, false = search.copies([PaintedSet([], copies, {}), PaintedSet([], held_out, {})])
    for way, one in found.items():
        shares(figures, f"found/{way}", one.is_copy, ">=0.9")
        figures.add(f"memorisation/right/{way}", float((one.nearest == planted).mean()), "")
    for way, one in false.items():
        shares(figures, f"false/concept/{way}", one.is_copy[~is_pair], "<=0.05")
        if is_pair.any():
            shares(figures, f"false/pair/{way}", one.is_copy[is_pair], "")


def shares(figures: Figures, name: str, is_copy: Bool[np.ndarray, "rows"], goal: str) -> None:
    """Print the share of copies among some pictures, with its 95 % interval and how many they are."""
    low, high = share_interval(int(is_copy.sum()), len(is_copy))
    figures.add(
        f"memorisation/{name}", float(is_copy.mean()), f"of {len(is_copy)}, {low:.3f} to {high:.3f}", goal
    )


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Plant copies of training pictures and search for them.")
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--planted", type=int, default=200, help="training pictures that are planted")
    arguments = parser.parse_args()
    figures = Figures("memorisation", "torch")
    table(figures, opened(arguments.run), arguments.planted)
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
