"""Training of a learned codebook with the network: initialised by k-means and updated between steps, identically on every worker."""

from collections.abc import Callable

import torch
from torch import Tensor

from corgi.feeding.noise import Noise
from corgi.models.codebook import LearnedCodebook, vectors_of
from corgi.settings.models import AutoencoderSettings
from corgi.training.ranks import summed

CANDIDATE = 1
"""Index of the random draw of one training sample that picks the position whose latent is a candidate for a code; the noise on its latents is another draw."""
START_PICTURES = 64
"""Largest number of train pictures from whose latents k-means initialises a codebook."""


class CodebookTraining:
    """Updates the codes during one training: a step's latents change the codes before the next step, whatever the micro-batches."""

    def __init__(self, settings: AutoencoderSettings) -> None:
        """Take the settings of the codebook and the global batch size."""
        self._settings, self._global_batch = settings.quantiser, settings.training.global_batch
        self._step: int | None = None

    def before(self, codes: LearnedCodebook, noise: Noise, latents: Callable[[], Tensor]) -> None:
        """Update the codes if a step begins; at the first step initialise them from `latents`, which are the same on every worker."""
        step, learner = noise.first // self._global_batch, codes.learner
        if learner is None or not codes.training or step == self._step:
            return
        self._step = step
        if step == 0:
            learner.start(codes, vectors_of(latents()))
        else:
            learner.advance(codes, self._settings.decay, self._settings.revive_below)

    def after(self, codes: LearnedCodebook, latents: Tensor, noise: Noise) -> None:
        """Add the latents of a micro-batch to the step; a collective operation of all workers."""
        learner = codes.learner
        if learner is None or not codes.training:
            return
        vectors = vectors_of(latents.detach().float())
        rows, per_row = torch.arange(len(latents), device=latents.device), len(vectors) // len(latents)
        chosen = rows * per_row + noise.integers(0, per_row, CANDIDATE)
        slots = noise.positions % self._global_batch
        code = codes.codes(latents).flatten()
        learner.pending.add_(summed(learner.seen(code, vectors, slots, vectors[chosen])))
