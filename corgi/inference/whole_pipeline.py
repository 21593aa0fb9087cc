"""A whole run as a diffusers pipeline: CLIP text embeddings in, pictures out, painted by the native samplers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.diffusion.loss import Parameterisation
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.embedder import Sampling
from corgi.models.picture_decoder import DECODER_SEED_OFFSET, Denoiser, PictureDecoder
from corgi.models.spatial_autoencoder import pixel_space
from corgi.models.text_prior import TextPrior
from corgi.models.upsampler import Upsampler, upsampled
from corgi.names import SamplerName


class DenoiserManner(TypedDict):
    """How a decoder or an upsampler paints; a schedule is given by its name and its number of timesteps. Pairs are lists in JSON."""

    prediction: Parameterisation
    schedule: tuple[str, int]
    sampler: SamplerName
    steps: int
    guidance: float
    guidance_interval: tuple[float, float]


class UpsamplerManner(DenoiserManner):
    """How a step of the cascade paints; sides are in px."""

    side: int
    low_side: int
    low_noise: float


class Manner(DenoiserManner):
    """How a pipeline paints."""

    prior_schedule: tuple[str, int]
    prior_sampler: SamplerName
    prior_steps: int
    prior_guidance: float
    prior_candidates: int
    upsamplers: NotRequired[list[UpsamplerManner]]


class DenoiserComponent(Protocol):
    """A component that contains the network of a decoder or an upsampler."""

    @property
    def network(self) -> Denoiser:
        """Return the network."""
        ...

    @property
    def device(self) -> torch.device:
        """Return the network's device."""
        ...


@dataclass
class Painted(BaseOutput):
    """The pipeline's output."""

    images: list[Image.Image]
    image_embeds: torch.Tensor
    """Unit-norm image embeddings [batch, dim] that the images were painted from."""


class TextToImagePipeline(DiffusionPipeline):
    """Caption's embedding -> image embedding -> picture -> larger pictures; a picture is determined by its text and seed.

    `text_embeds` are the unit-norm text embeddings of the towers named in `decoder.config.facts`, concatenated and divided by
    the square root of their number.
    """

    model_cpu_offload_seq = "prior->decoder->weak->autoencoder->upsampler->second_upsampler"
    _optional_components = ["weak", "upsampler", "second_upsampler"]  # noqa: RUF012 - diffusers reads a list

    def __init__(
        self,
        prior: ModelMixin,
        decoder: ModelMixin,
        autoencoder: ModelMixin,
        weak: ModelMixin | None = None,
        upsampler: ModelMixin | None = None,
        second_upsampler: ModelMixin | None = None,
        manner: dict[str, object] | None = None,  # a Manner; diffusers could not check that class
    ) -> None:
        """Register the models, and the weak network of autoguidance and the cascade's models if there are any; `manner` has the steps, samplers, guidance and schedules."""
        super().__init__()
        optional = {"weak": weak, "upsampler": upsampler, "second_upsampler": second_upsampler}
        self.register_modules(prior=prior, decoder=decoder, autoencoder=autoencoder, **optional)
        self.register_to_config(manner=manner)

    @torch.no_grad()
    def __call__(
        self,
        text_embeds: Float[Tensor, "batch dim"],
        seeds: Sequence[int] | None = None,
        encodings: Float[Tensor, "batch words width"] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        return_dict: bool = True,
    ) -> Painted | tuple[list[Image.Image], Tensor]:
        """Paint one picture per caption; seeds are 0, 1, ... if not given. A prior that reads token states takes them as `encodings`."""
        manner: Manner = self.config["manner"]
        chosen = list(range(len(text_embeds))) if seeds is None else list(seeds)
        sampling = Sampling(
            manner["prior_steps"],
            manner["prior_sampler"],
            manner["prior_guidance"],
            manner["prior_candidates"],
        )
        embeds = self._text_prior(manner).sample(text_embeds, chosen, sampling, encodings)
        shifted = [seed + DECODER_SEED_OFFSET for seed in chosen]
        pixels = self._painter(manner).sample(
            embeds,
            shifted,
            manner["steps"] if num_inference_steps is None else num_inference_steps,
            manner["guidance"] if guidance_scale is None else guidance_scale,
        )
        pixels = upsampled(self._upsamplers(manner), pixels, embeds, shifted)
        images = [Image.fromarray(np.asarray(one)) for one in pixels.cpu()]
        return Painted(images=images, image_embeds=embeds) if return_dict else (images, embeds)

    def _text_prior(self, manner: Manner) -> TextPrior:
        model: Any = self.prior
        process = ShiftedDiffusion(model.shift_table, Schedule.named(*manner["prior_schedule"]))
        return TextPrior(model.network, process, model.choice)

    def _painter(self, manner: Manner) -> PictureDecoder:
        decoder: Any = self.decoder
        autoencoder: Any = self.autoencoder
        inner = autoencoder.autoencoder
        table = ShiftTable.ddpm(inner.latent_dim)
        process = ShiftedDiffusion(table, Schedule.named(*manner["schedule"])).to(decoder.device)
        weak: Any = self.weak
        return PictureDecoder(
            decoder.network,
            process,
            inner,
            manner["prediction"],
            manner["sampler"],
            _pair(manner["guidance_interval"]),
            weak=None if weak is None else weak.network,
        )

    def _upsamplers(self, manner: Manner) -> list[Upsampler]:
        models: list[Any] = [self.upsampler, self.second_upsampler]
        return [
            _upsampler(model, step) for model, step in zip(models, manner.get("upsamplers", []), strict=False)
        ]


def _upsampler(model: DenoiserComponent, manner: UpsamplerManner) -> Upsampler:
    """Return the step of the cascade that paints in the given manner."""
    space = pixel_space(manner["side"]).to(model.device)
    process = ShiftedDiffusion(ShiftTable.ddpm(space.latent_dim), Schedule.named(*manner["schedule"]))
    painter = PictureDecoder(
        model.network,
        process.to(model.device),
        space,
        manner["prediction"],
        manner["sampler"],
        _pair(manner["guidance_interval"]),
    )
    return Upsampler(
        painter, manner["low_side"], manner["low_noise"] ** 2, manner["steps"], manner["guidance"]
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    """Return two numbers as the tuple that they were before JSON made a list of them."""
    low, high = values
    return low, high
