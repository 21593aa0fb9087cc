"""A decoder ready to paint: denoiser, process and autoencoder; image embedding in, picture out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from corgi.diffusion.guidance import guided, guided_in_one_batch
from corgi.diffusion.loss import Parameterisation, to_x0
from corgi.diffusion.samplers import SAMPLERS, philox_noise
from corgi.diffusion.shifted import ShiftedDiffusion
from corgi.diffusion.steps import Denoise
from corgi.models.autoencoder import Autoencoder
from corgi.models.neighbours import Neighbours
from corgi.names import SamplerName

PAINTED_AT_ONCE = 64
"""Pictures painted together: more only take more memory. Guidance gives the network each of them twice per call."""
DECODER_SEED_OFFSET = 500_009
"""Added to seeds so that the decoder's noise differs from the prior's for the same seed."""
Watch = Callable[[Tensor], None]
"""Called with the estimates of z_0 [batch, latent] after each step of a chain."""


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts v, or another parameterisation, from a noisy latent and an image embedding.

    Rows with `drop_mask` get the null embedding.
    """

    def __call__(
        self,
        z_t: Float[Tensor, "batch latent"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch dim"],
        drop_mask: Bool[Tensor, "batch"],
        /,
        **seen: Tensor,
    ) -> Float[Tensor, "batch latent"]:
        """Return the prediction."""
        ...


@dataclass(frozen=True)
class PictureDecoder:
    """p(x | z): latent diffusion conditioned on a CLIP image embedding."""

    network: Denoiser
    process: ShiftedDiffusion
    autoencoder: Autoencoder
    prediction: Parameterisation = "v"
    """What the network predicts."""
    sampler: SamplerName = "ddim"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Shares of T between which guidance is applied."""
    neighbours: Neighbours | None = None
    """Train pictures whose latents the network reads; None for a network that reads none."""
    weak: Denoiser | None = None
    """A weaker network that guidance guides away from (autoguidance, Karras et al. 2024); None: away from the null embedding."""

    @property
    def device(self) -> torch.device:
        """Return the device on which it paints."""
        return self.process.table.mean.device

    @property
    def manner(self) -> dict[str, object]:
        """Return its sampler and its kind of guidance, as JSON."""
        weak = {} if self.weak is None else {"autoguidance": True}
        return {"sampler": self.sampler, "guidance_interval": list(self.guidance_interval), **weak}

    @torch.no_grad()
    def sample(
        self,
        embedding: Float[Tensor, "batch dim"],
        seeds: Sequence[int],
        steps: int | Sequence[int] = 20,
        guidance: float = 1.5,
        watch: Watch | None = None,
        words: Float[Tensor, "batch words encoding_dim"] | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> UInt8[Tensor, "batch side side 3"]:
        """Paint one picture per embedding, on the decoder's device; row i depends only on its own inputs and seeds[i].

        `steps` is how many timesteps the sampler visits, or the timesteps themselves, ascending up to T.
        `watch` is called with each step's estimate of the latents, for at most PAINTED_AT_ONCE pictures at a time. `words` are word
        encodings of captions for a network that reads them; None: it paints as for pictures without captions. `given` are further
        inputs of the network, by name, with one row per picture.
        """
        embedding = embedding.to(self.device)
        inputs = {**(given or {}), **({} if words is None else {"words": words.to(embedding)})}
        parts = [
            self._paint(
                embedding[first : first + PAINTED_AT_ONCE],
                seeds[first : first + PAINTED_AT_ONCE],
                steps,
                guidance,
                watch,
                {name: value[first : first + PAINTED_AT_ONCE] for name, value in inputs.items()},
            )
            for first in range(0, max(1, len(embedding)), PAINTED_AT_ONCE)
        ]
        return torch.cat(parts)

    def _paint(
        self,
        embedding: Tensor,
        seeds: Sequence[int],
        steps: int | Sequence[int],
        guidance: float,
        watch: Watch | None,
        given: Mapping[str, Tensor],
    ) -> Tensor:
        cluster = torch.zeros(len(embedding), dtype=torch.int64, device=embedding.device)
        noise = philox_noise(seeds, self.process.table.dim, embedding.device)
        denoise = self._guided(embedding, {**self._seen(embedding), **given}, guidance)
        if watch is not None:
            denoise = watched(denoise, watch)
        latents = SAMPLERS[self.sampler].sample(denoise, self.process, cluster, noise, steps)
        return to_bytes(self.autoencoder.decode(latents))

    def neighbours_of(self, embedding: Float[Tensor, "batch dim"]) -> list[list[str]]:
        """Return the uids of the train pictures whose latents `sample` uses for each embedding; empty lists without neighbours."""
        if self.neighbours is None:
            return [[] for _ in embedding]
        return self.neighbours.names(self.neighbours.nearest(embedding.cpu().numpy()))

    def _seen(self, embedding: Tensor) -> dict[str, Tensor]:
        """Return the network's input `neighbours`: their latents; an empty dict without neighbours."""
        if self.neighbours is None:
            return {}
        latents = self.neighbours.latents(self.neighbours.nearest(embedding.cpu().numpy()))
        return {"neighbours": torch.tensor(latents, device=embedding.device, dtype=embedding.dtype)}

    def _guided(self, embedding: Tensor, inputs: Mapping[str, Tensor], scale: float) -> Denoise:
        low, high = (share * self.process.schedule.num_steps for share in self.guidance_interval)
        interval = None if self.guidance_interval == (0, 1) else (low, high)
        kept = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
        strong = self._denoiser(self.network, embedding, inputs, kept)
        if self.weak is not None:
            return guided(strong, self._denoiser(self.weak, embedding, inputs, kept), scale, interval)
        if scale in (0, 1):
            dropped = self._denoiser(self.network, embedding, inputs, ~kept)
            return guided(strong, dropped, scale, interval)
        twice = {name: torch.cat([rows, rows]) for name, rows in inputs.items()}
        mask, rows = torch.cat([kept, ~kept]), torch.cat([embedding, embedding])
        return guided_in_one_batch(self._denoiser(self.network, rows, twice, mask), scale, interval)

    def _denoiser(
        self, network: Denoiser, embedding: Tensor, seen: Mapping[str, Tensor], drop_mask: Tensor
    ) -> Denoise:
        inputs = {**seen, "drop_words": drop_mask} if "words" in seen else seen

        def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
            output = network(z_t, t, embedding, drop_mask, **inputs)
            return to_x0(self.process, output, z_t, t, cluster, self.prediction)

        return denoise


def watched(denoise: Denoise, watch: Watch) -> Denoise:
    """Return a denoiser that also calls `watch` with each of its estimates."""

    def seen(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
        z_0 = denoise(z_t, t, cluster)
        watch(z_0)
        return z_0

    return seen


def to_bytes(pictures: Float[Tensor, "batch 3 side side"]) -> UInt8[Tensor, "batch side side 3"]:
    """Convert pictures in 0..1 to bytes, channels last."""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def unit_range(pictures: UInt8[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
    """Convert bytes to pictures in 0..1."""
    return pictures.float().div(255)
