"""A training whose steps take a while, on the cluster that RAY_ADDRESS names: `python -m tests.support.slow_training FOLDER`.

It makes no checkpoint unless a notice asks for one, and survives no failure, but any number of preemptions.
"""

import sys
from pathlib import Path

from corgi.settings.recipe import Recipe
from corgi.training.trainer import train
from corgi.training.training import Training
from tests.support.tiny_training import tiny_training

NUM_STEPS = 120


def slow_training(folder: Path, pause_s: float) -> Training:
    """Return the training of two workers whose steps take `pause_s` and more."""
    return tiny_training(
        folder,
        "slow",
        {"dropout": 0.0, "pause_s": pause_s},
        num_steps=NUM_STEPS,
        num_workers=2,
        zero_stage=1,
        checkpoint_every_steps=1000,
        log_every_steps=1,
        max_failures=0,
    )


if __name__ == "__main__":
    train([slow_training(Path(sys.argv[1]), 0.5)], Recipe(name="tests"))
