"""A decoder ready to paint: denoiser, process and autoencoder; image embedding in, picture out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from corgi.diffusion.guidance import guided
from corgi.diffusion.loss import to_x0
from corgi.diffusion.samplers import ddim, philox_noise
from corgi.diffusion.shifted import ShiftedDiffusion
from corgi.diffusion.steps import Denoise
from corgi.models.autoencoder import Autoencoder


@runtime_checkable
class Denoiser(Protocol):
    """A network that answers v for a noisy latent and an image embedding; rows with `drop_mask` see the null embedding."""

    def __call__(
        self,
        z_t: Float[Tensor, "batch latent"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch dim"],
        drop_mask: Bool[Tensor, "batch"],
        /,
    ) -> Float[Tensor, "batch latent"]:
        """Return the predicted v."""
        ...


@dataclass(frozen=True)
class PictureDecoder:
    """p(x | z): latent diffusion conditioned on a CLIP image embedding."""

    network: Denoiser
    process: ShiftedDiffusion
    autoencoder: Autoencoder

    @property
    def device(self) -> torch.device:
        """Return where it paints."""
        return self.process.table.mean.device

    @torch.no_grad()
    def sample(
        self,
        embedding: Float[Tensor, "batch dim"],
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 1.5,
    ) -> UInt8[Tensor, "batch side side 3"]:
        """Paint one picture an embedding by DDIM, on the decoder's device; row i depends on its embedding and seeds[i] alone."""
        embedding = embedding.to(self.device)
        cluster = torch.zeros(len(embedding), dtype=torch.int64, device=embedding.device)
        noise = philox_noise(seeds, self.process.table.dim, embedding.device)
        denoise = guided(self._denoiser(embedding, False), self._denoiser(embedding, True), guidance)
        latents = ddim(denoise, self.process, cluster, noise, steps)
        return to_bytes(self.autoencoder.decode(latents))

    def _denoiser(self, embedding: Tensor, dropped: bool) -> Denoise:
        def denoise(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
            mask = torch.full_like(t, dropped, dtype=torch.bool)
            return to_x0(self.process, self.network(z_t, t, embedding, mask), z_t, t, cluster, "v")

        return denoise


def to_bytes(pictures: Float[Tensor, "batch 3 side side"]) -> UInt8[Tensor, "batch side side 3"]:
    """Return 0..1 pictures as bytes, channels last."""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
