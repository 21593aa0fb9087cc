"""A prior ready to sample: network, process and cluster choice; text embedding in, image embedding out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.choice import ClusterChoice, choice_places
from corgi.diffusion.guidance import best_of, guided
from corgi.diffusion.learned import LearnedShift
from corgi.diffusion.loss import to_x0
from corgi.diffusion.samplers import SAMPLERS, philox_noise
from corgi.diffusion.shifted import ShiftedDiffusion, check_finite
from corgi.diffusion.steps import Denoise
from corgi.models.embedder import Embedder, Embeddings, Encodings, Sampling
from corgi.models.prior import Prefix, Prior

CANDIDATE_STRIDE = 1_000_003
"""Distance between the seeds of one caption's candidates: large enough not to collide with another caption's seeds."""


@dataclass(frozen=True)
class TextPrior(Embedder):
    """p(z | y): one cluster index per sample, chosen once and used for the initial noise, every step and both guidance branches.

    The network processes each caption once, and the null caption once for all captions: every step, candidate and
    guidance branch reuses the keys and values.
    """

    network: Prior
    process: ShiftedDiffusion
    choice: ClusterChoice = field(default_factory=ClusterChoice)

    def __post_init__(self) -> None:
        """Use the learned (mu, Sigma) for sampling, if the prior has them."""
        if self.network_shift is not None:
            object.__setattr__(self, "process", replace(self.process, table=self.network_shift.table()))

    @property
    def device(self) -> torch.device:
        """Return the device on which it samples."""
        return self.process.table.mean.device

    def to(self, device: torch.device | str) -> "TextPrior":
        """Return the prior on another device; network and table themselves are moved, not copied."""
        return replace(self, network=self.network.to(device), process=self.process.to(device))

    @property
    def network_shift(self) -> LearnedShift | None:
        """Return the learned (mu, Sigma); None if they are fixed."""
        return getattr(self.network, "shift", None)

    @torch.no_grad()
    def cluster(
        self, text: Float[Tensor, "batch dim"], seeds: Sequence[int] | None = None
    ) -> Int[Tensor, "batch"]:
        """Return kappa(y) by the prior's cluster choice (eq. 11, 21, 22); zeros if there is only one cluster.

        A rule that draws needs one seed per caption. ValueError if a caption's embedding is not finite.
        """
        table = self.process.table
        if table.num_clusters == 1:
            return torch.zeros(len(text), dtype=torch.int64, device=text.device)
        check_finite(text)
        learned = self.choice.is_learned
        scores = self.network.choice_logits(text) if learned else self.choice.scores(text, table)
        u = None if seeds is None else choice_places(seeds, text.device)
        return self.choice.choose(scores, u)

    @torch.no_grad()
    def sample(
        self, text: Embeddings, seeds: Sequence[int], sampling: Sampling, encodings: Encodings | None = None
    ) -> Embeddings:
        """Draw one unit-norm image embedding per caption, on the prior's device; row i depends only on its text and seeds[i]."""
        text = text.to(self.device)
        encodings = None if encodings is None else encodings.to(self.device)
        count = sampling.num_candidates
        each = [seed + CANDIDATE_STRIDE * n for seed in seeds for n in range(count)]
        cluster = self.cluster(text.repeat_interleave(count, 0), each)
        denoise = guided(
            self.denoiser(self.network.prefix(text, encodings), count),
            self.denoiser(self._nothing(text, encodings), count),
            sampling.guidance,
        )
        drawn = F.normalize(self._chain(denoise, cluster, each, sampling), dim=-1)
        candidates = drawn.view(len(text), count, -1).transpose(0, 1)
        return best_of(candidates, text) if count > 1 else candidates[0]

    def denoiser(self, prefix: Prefix, count: int = 1) -> Denoise:
        """Return the network as a denoiser for samplers, for `count` chains per caption, in consecutive rows."""

        def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
            shape = (len(z_t) // count, count)
            output = self.network.denoise(
                prefix, z_t.view(*shape, -1), t.view(shape), cluster.view(shape)
            ).view_as(z_t)
            return to_x0(self.process, output, z_t, t, cluster, self.network.config.prediction)

        return denoise

    def _nothing(self, text: Tensor, encodings: Tensor | None) -> Prefix:
        """Process the null caption once for the whole batch."""
        words = None if encodings is None else encodings[:1]
        dropped = torch.ones(1, dtype=torch.bool, device=text.device)
        return self.network.prefix(text[:1], words, dropped).expand(len(text))

    def _chain(self, denoise: Denoise, cluster: Tensor, seeds: Sequence[int], sampling: Sampling) -> Tensor:
        noise = philox_noise(seeds, self.process.table.dim, cluster.device)
        sample = SAMPLERS[sampling.sampler].sample
        return sample(denoise, self.process, cluster, noise, sampling.steps)
