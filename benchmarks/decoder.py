"""The demo's decoder beside bare loops of diffusers on the same U-Net: training, painting, and latents made beforehand or on the fly.

make bench-decoder           (= python -m benchmarks.decoder)
One machine, one run, alternating, medians; untrained weights and generated rows: only speed is measured.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from benchmarks.figures import Figures, alternated, ratios
from corgi.diffusion.shifted import ShiftTable
from corgi.models.conv_codec import ConvCodec, ConvConfig
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.settings import recipe
from corgi.settings.decoder import DecoderSettings
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.tables.schema import Split
from corgi.training.decoder import LatentObjective
from corgi.training.loop import train_loop
from corgi.training.pseudo_text import PseudoText
from corgi.training.training import Training

RECIPE = Path(__file__).resolve().parents[1] / "pipelines" / "recipes" / "openmoji.yaml"
DIM, SIDE_PX, PICTURES = 256, 64, 64
"""Width of the embedding, side of the pictures, pictures painted at once: the demo's."""
GUIDANCE, SAMPLE_STEPS = 3.0, 20
UNIT_ROWS = 2048


def settings_of() -> DecoderSettings:
    """Return the demo's decoder, without the regression, which the bare loop has not."""
    return recipe.load(RECIPE).decoder.model_copy(update={"regression": False})


class GeneratedRows:
    """Random unit vectors and latents, in one unit."""

    counts = (UNIT_ROWS,)

    def __init__(self, latent_dim: int) -> None:
        """Draw them, the same each time."""
        draws = np.random.default_rng(0)
        image = draws.standard_normal((UNIT_ROWS, DIM), np.float32)
        self.columns = {
            "image": image / np.linalg.norm(image, axis=1, keepdims=True),
            "latent": draws.standard_normal((UNIT_ROWS, latent_dim), np.float32),
        }

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return the unit's rows."""
        return self.columns


class GeneratedDecoder(LatentObjective):
    """The decoder's own loss on generated rows."""

    def __init__(self) -> None:
        """Take mean and scale of the generated vectors."""
        shape = ConvConfig().latent_shape(SIDE_PX)
        self.generated = GeneratedRows(math.prod(shape))
        image = torch.from_numpy(self.generated.columns["image"])
        table = ShiftTable.standardised(image.mean(0), image.std(0))
        super().__init__(settings_of(), table, shape, PseudoText(0.0))

    def rows(self, split: Split = Split.TRAIN) -> GeneratedRows:
        """Return the generated rows."""
        return self.generated

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: only speed is measured."""
        return {}


def be_alone() -> None:
    """Be a process group of one, once."""
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def loop_rate(objective: type[Any], given: TrainingSettings, num_steps: int) -> float:
    """Return the common loop's samples per second in one process, the first logged lap left out."""
    settings = given.model_copy(
        update={
            "num_steps": num_steps,
            "num_workers": 1,
            "cpus_per_worker": float(torch.get_num_threads()),
            "checkpoint_every_steps": 10**6,
            "log_every_steps": num_steps // 2,
        }
    )
    be_alone()
    with tempfile.TemporaryDirectory() as folder:
        tracking = TrackingSettings(mode="disabled")
        training = Training("bench", folder, objective, {}, settings, tracking, "bench", 0)
        train_loop(training)
        lines = training.tracked.timings_file.read_text().splitlines()
    return float(json.loads(lines[-1])["samples_per_s"])


class Bare:
    """diffusers' own U-Net with fixed conditions, its schedulers and torch's AdamW: what a script without Corgi would run."""

    def __init__(self) -> None:
        """Build the network that the demo's decoder has inside, and one batch."""
        torch.manual_seed(0)
        self.objective, self.batch = GeneratedDecoder(), settings_of().training.global_batch
        settings = settings_of()
        self.unet: Any = self.objective.model().unet
        self.shape = self.objective.latent_shape
        self.vector = torch.randn(PICTURES, 4 * settings.unet.widths[0])
        self.tokens = torch.randn(PICTURES, settings.unet.tokens, settings.unet.widths[-1])
        self.latents = torch.from_numpy(self.objective.rows().columns["latent"])
        self.pictures = torch.rand(self.batch, 3, SIDE_PX, SIDE_PX)
        self.autoencoder = SpatialAutoencoder(ConvCodec(ConvConfig()), SIDE_PX).eval()
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.01)
        self.training_noise = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    def training(self, num_steps: int, on_the_fly: bool = False) -> float:
        """Return samples per second of some steps; `on_the_fly` encodes each batch from pixels first."""
        self._step(0, on_the_fly)
        started = time.perf_counter()
        for step in range(num_steps):
            self._step(step, on_the_fly)
        return num_steps * self.batch / (time.perf_counter() - started)

    def _step(self, step: int, on_the_fly: bool) -> None:
        first = step * self.batch % (UNIT_ROWS - self.batch)
        flat = self.latents[first : first + self.batch]
        if on_the_fly:
            with torch.no_grad():
                flat = self.autoencoder.encode(self.pictures)
        latent = flat.view(-1, *self.shape).contiguous(memory_format=torch.channels_last)
        eps, t = torch.randn_like(latent), torch.randint(0, 1000, (self.batch,))
        noisy: Tensor = self.training_noise.add_noise(latent, eps, t)  # pyright: ignore[reportArgumentType]
        target = self.training_noise.get_velocity(latent, eps, t)  # pyright: ignore[reportArgumentType]
        answer = self._answer(noisy, t, self.batch)
        loss = (answer - target).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def painting(self) -> float:
        """Return pictures per second of diffusers' DDIM with guidance, both halves in one batch, and of the autoencoder."""
        scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        scheduler.set_timesteps(SAMPLE_STEPS)
        started = time.perf_counter()
        latent = torch.randn(PICTURES, *self.shape).contiguous(memory_format=torch.channels_last)
        for t in scheduler.timesteps:
            answer = self._answer(torch.cat([latent, latent]), t, PICTURES, halves=2)
            with_image, without = answer.chunk(2)
            latent = scheduler.step(without + GUIDANCE * (with_image - without), t, latent).prev_sample  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        self.autoencoder.decode(latent.flatten(1))
        return PICTURES / (time.perf_counter() - started)

    def _answer(self, noisy: Tensor, t: Tensor, rows: int, halves: int = 1) -> Tensor:
        tokens, vector = self.tokens[:rows].repeat(halves, 1, 1), self.vector[:rows].repeat(halves, 1)
        return self.unet(noisy, t, tokens, class_labels=vector, return_dict=False)[0]


def our_painting(bare: Bare) -> Callable[[], float]:
    """Return a call that paints as generate does and gives pictures per second."""
    objective = bare.objective
    network: Any = objective.model().eval()
    painter = PictureDecoder(network, objective.process, bare.autoencoder)
    embedding = torch.from_numpy(objective.rows().columns["image"][:PICTURES])

    def once() -> float:
        started = time.perf_counter()
        painter.sample(embedding, range(PICTURES), SAMPLE_STEPS, GUIDANCE)
        return PICTURES / (time.perf_counter() - started)

    once()
    return once


def main() -> int:
    """Print and keep every figure."""
    parser = argparse.ArgumentParser(description="Time the demo's decoder.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each pair")
    parser.add_argument("--steps", type=int, default=30, help="training steps of a round")
    arguments = parser.parse_args()
    figures, bare = Figures("decoder", "torch", "diffusers", "deepspeed"), Bare()
    theirs, ours, fly = alternated(
        arguments.rounds,
        lambda: bare.training(arguments.steps),
        lambda: loop_rate(GeneratedDecoder, settings_of().training, 2 * arguments.steps),
        lambda: bare.training(arguments.steps, on_the_fly=True),
    )
    figures.add_rounds("decoder_bare_training", theirs, "samples/s")
    figures.add_rounds("decoder_training_over_bare", ratios(ours, theirs), "x", ">=0.95")
    figures.add_rounds("decoder_latents_made_before_over_on_the_fly", ratios(theirs, fly), "x", ">=1.3")
    bare.unet.eval()
    theirs, ours = alternated(arguments.rounds, bare.painting, our_painting(bare))
    figures.add_rounds("decoder_bare_painting", theirs, "pictures/s")
    figures.add_rounds("decoder_painting_over_bare", ratios(ours, theirs), "x", ">=0.95")
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
