"""Pictures painted per second by a run, beside a bare diffusers loop of the same networks, and the time spent outside networks.

make bench-generate          (= python benchmarks/generate.py; needs a run of make demo or make smoke)
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

import corgi
from benchmarks.figures import Figures, alternated, ratios
from corgi.diffusion.guidance import guide
from corgi.diffusion.samplers import philox_noise
from corgi.diffusion.scheduler import trained_betas
from corgi.inference.generate import Generator
from corgi.models.picture_decoder import DECODER_SEED_OFFSET, to_bytes

RUNS = ("runs/openmoji", "runs/smoke")
CAPTIONS = ("red heart", "a fox", "smiling face", "green apple", "yellow sun", "blue car", "house", "fish")


class Clock:
    """Seconds spent in the calls that it wraps."""

    def __init__(self) -> None:
        """Start at none."""
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call whose seconds are counted."""

        def counted(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - begun

        return counted


class TimedAutoencoder:
    """An autoencoder whose decoding is counted."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        """Wrap an autoencoder."""
        self.decode = clock.timed(inner.decode)


def watched(generator: Generator, clock: Clock) -> Generator:
    """Return a generator whose networks are counted."""
    prior: Any = generator.prior
    network = prior.network
    for name in ("prefix", "denoise"):
        setattr(network, name, clock.timed(getattr(network, name)))
    for tower in generator.towers:
        tower.texts = clock.timed(tower.texts)
    timed: Any = {
        "network": clock.timed(generator.decoder.network),
        "autoencoder": TimedAutoencoder(generator.decoder.autoencoder, clock),
    }
    return replace(generator, decoder=replace(generator.decoder, **timed))


@torch.no_grad()
def bare(generator: Generator, captions: list[str], seeds: list[int]) -> list[Image.Image]:
    """Paint with diffusers' DDIM scheduler around the same networks, both halves of guidance in one batch; the prior is the run's own."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    settings, decoder = generator.decoder_settings, generator.decoder
    schedule = decoder.process.schedule
    scheduler: Any = DDIMScheduler(
        num_train_timesteps=schedule.num_steps,
        trained_betas=trained_betas(schedule),
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(settings.sample_steps)
    text = generator.text_embedding(captions)
    words = generator.word_encodings(captions)
    embedding = generator.prior.sample(text, seeds, generator.prior_sampling, words)
    noise = philox_noise([seed + DECODER_SEED_OFFSET for seed in seeds], decoder.process.table.dim)
    z, network = noise(0), decoder.network
    halves = 1 if settings.guidance == 1 else 2
    embeddings, dropped = embedding.repeat(halves, 1), torch.arange(halves * len(seeds)) >= len(seeds)
    for tau in scheduler.timesteps:
        t = torch.full((len(embeddings),), int(tau) + 1)
        answer = network(z.repeat(halves, 1), t, embeddings, dropped)
        if halves == 2:
            answer = guide(*answer.chunk(2), settings.guidance)
        z = scheduler.step(answer, tau, z).prev_sample
    return [Image.fromarray(np.asarray(one)) for one in to_bytes(decoder.autoencoder.decode(z))]


def speed(figures: Figures, folder: str, number: int) -> None:
    """Compare our generation of so many pictures with the bare loop, then count what is outside the networks."""
    begun = time.perf_counter()
    generator = corgi.load(folder)
    figures.add("generate_load", time.perf_counter() - begun, "s", "<=10")
    captions = [CAPTIONS[n % len(CAPTIONS)] for n in range(number)]
    seeds = list(range(number))

    def timed(call: Callable[[], Any]) -> Callable[[], float]:
        def seconds() -> float:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        return seconds

    ours, theirs = alternated(
        3,
        timed(lambda: generator.generate_each(captions, seeds)),
        timed(lambda: bare(generator, captions, seeds)),
    )
    figures.add_rounds("generate_ours", [number / seconds for seconds in ours], "pictures/s")
    figures.add_rounds("generate_bare_diffusers", [number / seconds for seconds in theirs], "pictures/s")
    figures.add_rounds("generate_vs_bare_diffusers", ratios(theirs, ours), "x", ">=0.95")
    figures.add_rounds("generate_64", [seconds * 64 / number for seconds in ours], "s", "<=30")
    clock, shares = Clock(), []
    counted = watched(generator, clock)
    for _ in range(3):
        clock.seconds = 0.0
        whole = timed(lambda: counted.generate_each(captions, seeds))()
        shares.append(100 * (1 - clock.seconds / whole))
    figures.add_rounds("generate_outside_networks", shares, "%", "<=10")


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Benchmark generation.")
    parser.add_argument("--run", help="a finished run; runs/openmoji or runs/smoke when not given")
    parser.add_argument("--pictures", type=int, default=64)
    arguments = parser.parse_args()
    folder = arguments.run or next((name for name in RUNS if Path(name, "run.json").exists()), RUNS[0])
    figures = Figures("generate", "torch", "diffusers")
    speed(figures, folder, arguments.pictures)
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
