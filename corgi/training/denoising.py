"""The objective that decoder and upsamplers share: the diffusion loss, conditioned on a slightly noisy image embedding."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0, prediction_weight, squared_error
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.feeding.feed import Rows, rows_between, tensors
from corgi.feeding.noise import Noise
from corgi.models.denoiser import perturb_embedding
from corgi.settings.decoder import DenoiserSettings
from corgi.tables.schema import Split
from corgi.tables.store import Store
from corgi.training.pseudo_text import PseudoText
from corgi.training.ranks import own_rows, rows_of_all

TIMESTEP, EPS, DROP, PERTURBATION, LEVEL = range(5)
"""Noise streams of a training sample, one per random quantity; the next is `pseudo_text.PSEUDO_TEXT`."""
MAX_VAL_PICTURES = 4096
"""Maximum number of val pictures that an evaluation measures."""
VAL_BATCH = 64
"""Val pictures per call of the network."""

_Settings = TypeVar("_Settings", bound=DenoiserSettings)


class DenoisingObjective(ABC, Generic[_Settings]):
    """The diffusion loss on what `sample` returns; a subclass provides network, rows and samples."""

    def __init__(
        self, settings: _Settings, pseudo_text: PseudoText, table: ShiftTable, process: ShiftedDiffusion
    ) -> None:
        """Take the parts.

        Args:
            settings: the section of the network that is trained.
            pseudo_text: turns a picture's embedding into the network's condition.
            table: one cluster, with mean and scale of that condition.
            process: the diffusion of what is denoised.

        """
        self.settings, self.pseudo_text = settings, pseudo_text
        self.table, self.process = table, process

    @abstractmethod
    def model(self) -> nn.Module:
        """Build the network with its initial weights."""

    @abstractmethod
    def rows(self, split: Split = Split.TRAIN) -> Rows:
        """Return the kept pictures of a split, with the column `image` of their embeddings."""

    @abstractmethod
    def sample(
        self, batch: dict[str, Tensor], noise: Noise, augment: bool
    ) -> tuple[Float[Tensor, "batch latent"], dict[str, Tensor]]:
        """Return the clean samples, and the network's inputs besides the embedding; `augment` is false on val."""

    def place(self, device: torch.device) -> None:
        """Move the embeddings' mean and scale and the process to a device."""
        self.table, self.process = self.table.to(device), self.process.to(device)
        self.pseudo_text.to(device)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean over rows of the prediction's squared error, weighted (eq. 25)."""
        t = noise.integers(1, self.process.schedule.num_steps + 1, TIMESTEP)
        return self._error(model, batch, noise, t).mean(), {}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the weighted error on val with fixed noise; empty without val rows. Each rank computes its share of the rows."""
        rows, device = self.rows(Split.VAL), self.table.mean.device
        own = own_rows(min(self.max_val(), sum(rows.counts)))
        val = rows_between(rows, own)
        errors = [torch.zeros(0, device=device)]
        for first in range(0, len(own), VAL_BATCH):
            batch = self._placed(rows, val, first, VAL_BATCH)
            positions = own.start + torch.arange(first, first + len(batch["image"]))
            noise = Noise(self.settings.seed, positions, device)
            t = noise.integers(1, self.process.schedule.num_steps + 1, TIMESTEP)
            with torch.no_grad():
                errors.append(self._error(model.eval(), batch, noise, t, augment=False).float())
        everything = rows_of_all(torch.cat(errors))
        return {"loss": float(everything.mean())} if len(everything) else {}

    def max_val(self) -> int:
        """Return how many val pictures an evaluation measures at most."""
        return MAX_VAL_PICTURES

    def first_val(self, number: int) -> dict[str, Tensor]:
        """Return the first val rows on the device; empty when there is none."""
        rows = self.rows(Split.VAL)
        return self._placed(rows, rows_between(rows, range(number)), 0, number)

    def _placed(
        self, rows: Rows, columns: dict[str, np.ndarray], first: int, number: int
    ) -> dict[str, Tensor]:
        """Return some of the rows' columns on the device, half floats as fp32."""
        device = self.table.mean.device
        part = {name: values[first : first + number] for name, values in columns.items()}
        return _wide(
            {name: values.to(device) for name, values in tensors(rows, part).items()} if part else {}
        )

    def _error(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise, t: Tensor, augment: bool = True
    ) -> Tensor:
        batch = _wide(batch)
        latent, seen = self.sample(batch, noise, augment)
        cluster, kind = torch.zeros_like(t), self.settings.prediction
        z_t = self.process.q_sample(latent, t, noise.normal((latent.shape[1],), EPS), cluster)
        drop = (noise.uniform(DROP) < self.settings.embedding_drop_prob) & augment
        image = self.pseudo_text(batch["image"], noise)
        embedding, level = self._perturbed(image, noise) if augment else (image, {})
        target = from_x0(self.process, latent, z_t, t, cluster, kind)
        error = squared_error(target, model(z_t, t, embedding, drop, **level, **seen))
        name = None if self.settings.loss_weight == "none" else self.settings.loss_weight
        return prediction_weight(self.process.schedule, t, kind, name).to(error.dtype) * error

    def _perturbed(self, embedding: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the embedding with noise mixed in, and the share of noise if the network reads it."""
        share = self.settings.conditioning_noise**2
        if share == 0:
            return embedding, {}
        known = self.settings.noise_level_known
        level = share * noise.uniform(LEVEL) if known else torch.full_like(embedding[:, 0], share)
        drawn = noise.normal((embedding.shape[1],), PERTURBATION)
        return perturb_embedding(embedding, drawn, level, self.table), {"level": level} if known else {}


def condition_table(store: Store, shift: str, pseudo_text: PseudoText) -> ShiftTable:
    """Return mean and scale of a network's condition, from those that the shift stage measured; `shift` is the path of its manifest."""
    (made,) = store.listed(store.read_stage(shift))
    measured = load_file(store.path(made, "shift"))
    moments = measured["global_mean"].double().numpy(), measured["global_scale"].double().numpy()
    mean, std = pseudo_text.moments(*moments)
    return ShiftTable.standardised(torch.from_numpy(mean).float(), torch.from_numpy(std).float())


def _wide(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return float columns as fp32 (vectors are stored as half floats), and other columns unchanged."""
    return {name: value.float() if value.is_floating_point() else value for name, value in columns.items()}
