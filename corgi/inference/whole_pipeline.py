"""A whole run as a diffusers pipeline: CLIP text embeddings in, pictures out, painted by the native samplers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.embedder import Sampling
from corgi.models.picture_decoder import DECODER_SEED_OFFSET, PictureDecoder
from corgi.models.text_prior import TextPrior


@dataclass
class Painted(BaseOutput):
    """What the pipeline returns."""

    images: list[Image.Image]
    image_embeds: torch.Tensor
    """Unit-norm image embeddings [batch, dim] that the images were painted from."""


class TextToImagePipeline(DiffusionPipeline):
    """Caption's embedding -> image embedding -> picture, by seeds: one seed and one text give one picture.

    `text_embeds` are the unit-norm text embeddings of the towers named in `decoder.config.facts`, side by side and divided by
    the square root of their number.
    """

    model_cpu_offload_seq = "prior->decoder->autoencoder"

    def __init__(
        self,
        prior: ModelMixin,
        decoder: ModelMixin,
        autoencoder: ModelMixin,
        manner: dict[str, Any] | None = None,
    ) -> None:
        """Register the models; `manner` holds steps, samplers, guidance and schedules."""
        super().__init__()
        self.register_modules(prior=prior, decoder=decoder, autoencoder=autoencoder)
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
        """Paint one picture per caption; seeds are 0, 1, ... if not given. A prior that reads words takes their encodings."""
        manner: Any = dict(self.config["manner"])
        chosen = list(range(len(text_embeds))) if seeds is None else list(seeds)
        sampling = Sampling(
            manner["prior_steps"],
            manner["prior_sampler"],
            manner["prior_guidance"],
            manner["prior_candidates"],
        )
        embeds = self._text_prior(manner).sample(text_embeds, chosen, sampling, encodings)
        pixels = self._painter(manner).sample(
            embeds,
            [seed + DECODER_SEED_OFFSET for seed in chosen],
            manner["steps"] if num_inference_steps is None else num_inference_steps,
            manner["guidance"] if guidance_scale is None else guidance_scale,
        )
        images = [Image.fromarray(np.asarray(one)) for one in pixels.cpu()]
        return Painted(images=images, image_embeds=embeds) if return_dict else (images, embeds)

    def _text_prior(self, manner: dict[str, Any]) -> TextPrior:
        model: Any = self.prior
        process = ShiftedDiffusion(model.shift_table, Schedule.named(*manner["prior_schedule"]))
        return TextPrior(model.network, process, model.choice)

    def _painter(self, manner: dict[str, Any]) -> PictureDecoder:
        decoder: Any = self.decoder
        autoencoder: Any = self.autoencoder
        inner = autoencoder.autoencoder
        table = ShiftTable.ddpm(inner.latent_dim)
        process = ShiftedDiffusion(table, Schedule.named(*manner["schedule"])).to(decoder.device)
        interval = tuple(manner["guidance_interval"])
        return PictureDecoder(
            decoder.network, process, inner, manner["prediction"], manner["sampler"], interval
        )
