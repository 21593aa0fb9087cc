"""The loss of priors (eq. 14) and their metrics on val, independent of where their rows come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.learned import NUM_DRAWS, diversity_loss, gaussian_draws, similarity_loss
from corgi.diffusion.loss import Noised, loss_weight, prediction_error, to_x0, weighted_loss
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable, choose_cluster
from corgi.feeding.captions import drawn_caption
from corgi.feeding.feed import Rows, dense, rows_between
from corgi.feeding.noise import Noise
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior
from corgi.models.text_prior import TextPrior
from corgi.settings.models import PriorSettings
from corgi.tables.schema import Split
from corgi.tracking.tracked_run import Shown
from corgi.training.finetune import started_prior
from corgi.training.prior_sizes import config_of
from corgi.training.ranks import own_rows, rows_of_all
from corgi.training.similarity import similarities
from corgi.training.words import cut_or_pad

CAPTION_KIND, CAPTION_INDEX, TIMESTEP, EPS, DROP, CHOICE, SHIFT_EPS = range(7)
"""Noise streams of a training sample, one per random quantity."""
LEVEL_STRIDE = 16
"""Noise level j of a caption uses the streams above plus j times this."""

MAX_VAL_ROWS = 512
MAX_SHOWN_ROWS = 256
VAL_BATCH = 128
"""Number of val rows that are sampled at once."""


def network_of(settings: PriorSettings, table: ShiftTable, variant: str) -> Prior:
    """Build an untrained network."""
    return Prior(config_of(settings, table.dim, table.num_clusters, variant), table)


class Drawn(NamedTuple):
    """What was drawn for one batch: [batch, levels, ...], except text, drop and own, which belong to the caption."""

    text: Float[Tensor, "batch dim"]
    drop: Tensor
    own: Int[Tensor, "batch"]
    sample: Noised
    """Levels flattened into the batch, level by level of each caption."""


@dataclass(frozen=True)
class PriorParts:
    """What a prior is trained with, besides its rows."""

    settings: PriorSettings
    table: ShiftTable
    choice: ClusterChoice
    variant: str = "shifted"
    has_words: bool = False
    """Whether the rows have word encodings."""
    init: Mapping[str, str] = field(default_factory=dict)
    """Where to read the weights that the network starts from, as `place_of` returns it."""


class PriorLoss(ABC):
    """The weighted x0 error of shifted diffusion (eq. 14) on captioned pictures; a subclass provides the rows."""

    def __init__(self, parts: PriorParts) -> None:
        """Take the parts; no rows are read."""
        self.settings, self.table, self.choice = parts.settings, parts.table, parts.choice
        self.variant, self.has_words, self.init = parts.variant, parts.has_words, parts.init
        schedule = Schedule.named(self.settings.schedule, self.settings.num_timesteps)
        self.process = ShiftedDiffusion(self.table, schedule)

    def place(self, device: torch.device) -> None:
        """Move (mu, Sigma) and the schedule to a device."""
        self.process = self.process.to(device)

    def model(self) -> nn.Module:
        """Build the network with its initial weights; its (mu, Sigma) are always those of its own run."""
        return started_prior(network_of(self.settings, self.table, self.variant), self.init, self.variant)

    def rows(self) -> Rows:
        """Return the kept train pictures that have a full caption."""
        return self.split(Split.TRAIN)

    @abstractmethod
    def split(self, split: Split) -> Rows:
        """Return the kept pictures of a split that have a full caption."""

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], noise: Noise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted squared distance, d times eq. 14, which is of order one for unit vectors.

        A learned cluster choice adds its head's cross entropy; a learned shift adds its two losses.
        """
        network = cast("Prior", getattr(model, "module", model))
        process = self._process(network)
        drawn = self._draw(process, batch, noise)
        z_0, z_t, t, cluster = drawn.sample
        levels = self.settings.noise_levels_per_caption
        shape = (len(drawn.text), levels) if levels > 1 else (len(drawn.text),)
        output = model(
            z_t.view(*shape, -1), t.view(shape), drawn.text, drawn.own, self.words(batch, noise), drawn.drop
        ).view_as(z_t)
        kind, settings = self.settings.prediction, self.settings
        error = prediction_error(process, output, drawn.sample, kind, settings.loss_metric) * z_0.shape[1]
        weight = loss_weight(process.schedule, t, settings.loss_weight)
        with torch.no_grad():
            estimate = to_x0(process, output.float(), z_t, t, cluster, kind)
            metrics = {"x0_cosine": F.cosine_similarity(z_0, estimate).mean()}
        extra, more = self._extra_losses(network, drawn, noise, weight)
        return weighted_loss(error, weight) + extra, {**metrics, **more}

    def _draw(self, process: ShiftedDiffusion, batch: dict[str, Tensor], noise: Noise) -> Drawn:
        """Draw caption, cluster and noise levels; `noise_levels_per_caption` levels share a caption."""
        z_0, text = batch["image"].float(), self.caption(batch, noise)
        levels, dim = self.settings.noise_levels_per_caption, z_0.shape[1]
        cluster = self._cluster(process, z_0, text, noise)
        t = self._timesteps(noise)
        eps = torch.stack([noise.normal((dim,), EPS + LEVEL_STRIDE * j) for j in range(levels)], dim=1)
        spread = z_0.repeat_interleave(levels, 0), cluster.repeat_interleave(levels, 0)
        z_t = process.q_sample(spread[0], t.flatten(), eps.flatten(0, 1), spread[1])
        drop = noise.uniform(DROP) < self.settings.text_drop_prob
        return Drawn(text, drop, cluster, Noised(spread[0], z_t, t.flatten(), spread[1]))

    def _timesteps(self, noise: Noise) -> Int[Tensor, "batch levels"]:
        """Draw timesteps in 1..T, each uniform; those of one caption are evenly spaced, modulo T."""
        num_steps, levels = self.process.schedule.num_steps, self.settings.noise_levels_per_caption
        first = noise.integers(1, num_steps + 1, TIMESTEP)
        offset = torch.arange(levels, device=first.device) * num_steps // levels
        return (first[:, None] - 1 + offset) % num_steps + 1

    def _cluster(self, process: ShiftedDiffusion, z_0: Tensor, text: Tensor, noise: Noise) -> Tensor:
        """Choose a cluster as sampling does; with a learned choice, by the picture itself, since that is what the head learns."""
        if process.table.num_clusters == 1:
            return torch.zeros(len(text), dtype=torch.int64, device=text.device)
        if self.choice.is_learned:
            return choose_cluster(z_0, process.table.mean)
        u = noise.uniform(CHOICE) if self.choice.is_drawn else None
        return self.choice.choose(self.choice.scores(text, process.table), u)

    def _extra_losses(
        self, network: Prior, drawn: Drawn, noise: Noise, weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of a learned choice and a learned shift (eq. 19, 20, 23), and the metrics to log."""
        extra, metrics = torch.zeros((), device=drawn.text.device), {}
        if getattr(network, "choice", None) is not None:
            logits = network.choice_logits(drawn.text)
            extra = extra + F.cross_entropy(logits, drawn.own)
            metrics["choice_accuracy"] = (logits.argmax(-1) == drawn.own).float().mean()
        shift, levels = getattr(network, "shift", None), self.settings.noise_levels_per_caption
        if shift is not None:
            per_caption = weight.view(-1, levels).mean(dim=1)
            eps = noise.normal((NUM_DRAWS, drawn.text.shape[1]), SHIFT_EPS)
            z_0 = drawn.sample.z_0[::levels]
            similar = similarity_loss(z_0, gaussian_draws(shift, drawn.own, eps), per_caption)
            diverse = diversity_loss(shift.mean[drawn.own], per_caption)
            extra = extra + similar + diverse
            metrics |= {"shift_similarity": similar, "shift_diversity": diverse}
        return extra, metrics

    def _process(self, network: Prior) -> ShiftedDiffusion:
        """Return the process, with the network's own (mu, Sigma) when it learns them."""
        shift = getattr(network, "shift", None)
        return self.process if shift is None else ShiftedDiffusion(shift.table(), self.process.schedule)

    def caption(self, batch: dict[str, Tensor], noise: Noise) -> Float[Tensor, "batch dim"]:
        """Draw one caption per picture, fp32: coarse with the recipe's probability if there is one, full otherwise."""
        return self._drawn(batch, noise, batch["coarse"], batch["full"]).float()

    def words(
        self, batch: dict[str, Tensor], noise: Noise
    ) -> Float[Tensor, "batch words encoding_dim"] | None:
        """Return the word encodings of the caption that `caption` draws; None for a prior without words."""
        if not self.has_words:
            return None
        number = self.settings.num_text_tokens
        coarse, full = (cut_or_pad(batch[name].float(), number) for name in ("coarse_words", "full_words"))
        return self._drawn(batch, noise, coarse, full)

    def _drawn(self, batch: dict[str, Tensor], noise: Noise, coarse: Tensor, full: Tensor) -> Tensor:
        """Return each row's entry for its drawn caption, out of `coarse` and `full`, both [batch, slots, ...]."""
        is_coarse = (noise.uniform(CAPTION_KIND) < self.settings.coarse_caption_share) & (
            batch["num_coarse"] > 0
        )
        u = noise.uniform(CAPTION_INDEX)
        return torch.where(
            is_coarse.view(-1, *(1,) * (full.ndim - 2)),
            drawn_caption(coarse, batch["num_coarse"], u),
            drawn_caption(full, batch["num_full"], u),
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return cosines of sampled embeddings on val, under DALLE2-pytorch's names; empty without val rows.

        Each rank samples its share of the rows.
        """
        if not (val := self._val(MAX_VAL_ROWS)):
            return {}
        image, text = val["image"], val["text"]
        prior = self._prior(model)
        sampled = rows_of_all(self._sampled(prior, val, own_rows(len(text))))
        figures = similarities(sampled, image, text)
        if prior.process.table.num_clusters > 1:
            seeds = range(len(text)) if self.choice.is_drawn else None
            own = choose_cluster(image, prior.process.table.mean)
            figures["text picks the picture's cluster"] = float(
                (prior.cluster(text, seeds) == own).float().mean()
            )
        return {f"{name} [steps={self.settings.sample_steps}]": value for name, value in figures.items()}

    def show(self, model: nn.Module) -> Shown:
        """Return a histogram of the cosines of sampled to true embeddings on val; nothing without val rows."""
        if not (val := self._val(MAX_SHOWN_ROWS)):
            return Shown()
        everything = range(len(val["image"]))
        cosines = (self._sampled(self._prior(model), val, everything) * val["image"]).sum(-1)
        return Shown(histograms={"cosine to the true embedding": cosines.double().cpu().numpy()})

    def _prior(self, model: nn.Module) -> TextPrior:
        assert isinstance(model, Prior)
        return TextPrior(model.eval(), self.process, self.choice)

    def _val(self, max_rows: int) -> dict[str, Tensor]:
        """Return `image`, the first full caption as `text`, and its word encodings for a prior with words; empty without val rows."""
        rows = self.split(Split.VAL)
        columns = rows_between(rows, range(min(max_rows, sum(rows.counts))))
        if not columns:
            return {}
        device = self.table.mean.device
        loaded = {name: torch.from_numpy(dense(values)).to(device) for name, values in columns.items()}
        val = {"image": loaded["image"].float(), "text": loaded["full"][:, 0].float()}
        if self.has_words:
            words = loaded["full_words"][:, :1].float()
            val["encodings"] = cut_or_pad(words, self.settings.num_text_tokens)[:, 0]
        return val

    def _sampled(self, prior: TextPrior, val: dict[str, Tensor], rows: range) -> Float[Tensor, "n dim"]:
        """Sample one embedding for each row, in batches; row i has seed i, so that its sample does not depend on the share it is in."""
        sampling = Sampling(self.settings.sample_steps, self.settings.sampler)
        sampled = [val["image"][:0]]
        for first in range(rows.start, rows.stop, VAL_BATCH):
            part = range(first, min(first + VAL_BATCH, rows.stop))
            text, *encodings = (
                val[name][part.start : part.stop] for name in ("text", "encodings") if name in val
            )
            sampled.append(prior.sample(text, part, sampling, *encodings))
        return torch.cat(sampled)
