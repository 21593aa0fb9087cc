"""A prior ready to sample: network, process and cluster choice; text embedding in, image embedding out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.guidance import best_of, guided
from corgi.diffusion.samplers import Denoise, ancestral, ddim, philox_noise
from corgi.diffusion.shifted import ShiftedDiffusion, choose_cluster
from corgi.models.prior import Prior

CANDIDATE_STRIDE = 1_000_003
"""Seeds of one caption's candidates lie this far apart, so that they meet no other caption's seeds."""


@dataclass(frozen=True)
class Sampling:
    """How to sample: the sampler, its steps, guidance scale and candidates per caption."""

    steps: int = 8
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    guidance: float = 1.0
    num_candidates: int = 1


@dataclass(frozen=True)
class TextPrior:
    """p(z | y): one cluster index a caption, chosen once and used by start, every step and both guidance branches."""

    network: Prior
    process: ShiftedDiffusion

    def cluster(self, text: Float[Tensor, "batch dim"]) -> Int[Tensor, "batch"]:
        """Return kappa(y), eq. 11; zero where there is one cluster."""
        if self.process.table.num_clusters == 1:
            return torch.zeros(len(text), dtype=torch.int64, device=text.device)
        return choose_cluster(text, self.process.table.mean)

    @torch.no_grad()
    def sample(
        self, text: Float[Tensor, "batch dim"], seeds: Sequence[int], sampling: Sampling
    ) -> Float[Tensor, "batch dim"]:
        """Draw one unit-norm image embedding a caption; row i depends on its text and seeds[i] alone."""
        cluster = self.cluster(text)
        candidates = [
            self._draw(text, [seed + CANDIDATE_STRIDE * n for seed in seeds], cluster, sampling)
            for n in range(sampling.num_candidates)
        ]
        return best_of(torch.stack(candidates), text) if len(candidates) > 1 else candidates[0]

    def _draw(self, text: Tensor, seeds: Sequence[int], cluster: Tensor, sampling: Sampling) -> Tensor:
        noise = philox_noise(seeds, self.process.table.dim, text.device)
        denoise = guided(self._denoiser(text, False), self._denoiser(text, True), sampling.guidance)
        run = ancestral if sampling.sampler == "ancestral" else ddim
        return F.normalize(run(denoise, self.process, cluster, noise, sampling.steps), dim=-1)

    def _denoiser(self, text: Tensor, dropped: bool) -> Denoise:
        def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
            return self.network(z_t, t, text, cluster, None, torch.full_like(t, dropped, dtype=torch.bool))

        return denoise
