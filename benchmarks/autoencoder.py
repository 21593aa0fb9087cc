"""The demo's autoencoder in the common loop beside a bare loop of torch: same network, loss, batch and optimiser.

make bench-autoencoder       (= python -m benchmarks.autoencoder)
One machine, one run, alternating, medians; generated pictures. The loss is L1 alone: with a tower in it both sides would
spend most of their time in the same frozen network.
"""

import argparse
import sys
import time

import numpy as np
import torch
from torch import nn

from benchmarks.decoder import RECIPE, SIDE_PX, loop_rate
from benchmarks.figures import Figures, alternated, ratios
from corgi.feeding.noise import Noise
from corgi.latents.objective import CodecLoss
from corgi.settings import recipe
from corgi.settings.models import AutoencoderSettings
from corgi.tables.schema import Split
from corgi.tracking.tracked_run import Shown

UNIT_ROWS = 1024


def settings_of() -> AutoencoderSettings:
    """Return the demo's autoencoder without its perceptual loss."""
    given = recipe.load(RECIPE).autoencoder
    return given.model_copy(update={"conv": given.conv.model_copy(update={"perceptual_weight": 0.0})})


class GeneratedPictures:
    """Random pictures in one unit."""

    counts = (UNIT_ROWS,)

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return the unit's pictures, the same each time."""
        draws = np.random.default_rng(unit)
        return {"picture": draws.integers(0, 256, (UNIT_ROWS, 3, SIDE_PX, SIDE_PX), np.uint8)}


class GeneratedAutoencoder(CodecLoss):
    """The autoencoder's own loss on generated pictures."""

    def __init__(self) -> None:
        """Take the demo's settings; no tower is loaded."""
        super().__init__(settings_of())

    def rows(self, split: Split = Split.TRAIN) -> GeneratedPictures:
        """Return the generated pictures."""
        return GeneratedPictures()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: only speed is measured."""
        return {}

    def show(self, model: nn.Module) -> Shown:
        """Show nothing."""
        return Shown()


def bare_training(num_steps: int) -> float:
    """Return samples per second of torch's AdamW on the same loss, after one step."""
    torch.manual_seed(0)
    objective, batch = GeneratedAutoencoder(), settings_of().training.global_batch
    model, pictures = objective.model(), torch.from_numpy(GeneratedPictures().load(0)["picture"])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    started = 0.0
    for step in range(num_steps + 1):
        if step == 1:
            started = time.perf_counter()
        first = step * batch % (UNIT_ROWS - batch)
        noise = Noise(0, torch.arange(step * batch, (step + 1) * batch))
        loss, _ = objective.loss(model, {"picture": pictures[first : first + batch]}, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return num_steps * batch / (time.perf_counter() - started)


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description="Time the demo's autoencoder.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the pair")
    parser.add_argument("--steps", type=int, default=60, help="training steps of a round")
    arguments = parser.parse_args()
    figures = Figures("autoencoder", "torch", "deepspeed")
    theirs, ours = alternated(
        arguments.rounds,
        lambda: bare_training(arguments.steps),
        lambda: loop_rate(GeneratedAutoencoder, settings_of().training, 2 * arguments.steps),
    )
    figures.add_rounds("autoencoder_bare_training", theirs, "samples/s")
    figures.add_rounds("autoencoder_training_over_bare", ratios(ours, theirs), "x", ">=0.95")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
