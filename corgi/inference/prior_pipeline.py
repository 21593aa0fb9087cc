"""The prior as a diffusers pipeline: CLIP text embeddings in, CLIP image embeddings out."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from jaxtyping import Float
from torch import Tensor

from corgi.diffusion.guidance import best_of, guide
from corgi.diffusion.shifted import check_finite


@dataclass
class PriorOutput(BaseOutput):
    """The pipeline's output."""

    image_embeds: torch.Tensor
    """Unit-norm image embeddings [batch, dim]."""


class ShiftedPriorPipeline(DiffusionPipeline):
    """Sample p(z | y) with a scheduler that has the diffusers interface.

    `text_embeds` are the unit-norm text embeddings of the towers named in `prior.config.facts`, concatenated and
    divided by the square root of their number; `image_embeds` have the same form in the towers' image space.
    """

    model_cpu_offload_seq = "prior"

    def __init__(
        self,
        prior: ModelMixin,
        scheduler: SchedulerMixin,
        num_inference_steps: int = 8,
        guidance_scale: float = 1.0,
        num_candidates: int = 1,
    ) -> None:
        """Register a `PriorModel` and a `ShiftedDiffusionScheduler`; the numbers are the defaults for calls."""
        super().__init__()
        self.register_modules(prior=prior, scheduler=scheduler)
        self.register_to_config(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_candidates=num_candidates,
        )

    @torch.no_grad()
    def __call__(
        self,
        text_embeds: Float[Tensor, "batch dim"],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_candidates: int | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        encodings: Float[Tensor, "batch words width"] | None = None,
    ) -> PriorOutput | tuple[Tensor]:
        """Sample one image embedding per caption: the closest to the text among `num_candidates`.

        A prior that reads token states takes them as `encodings`, zero after a caption's end.
        """
        settings: Any = self.config
        steps = settings.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = settings.guidance_scale if guidance_scale is None else guidance_scale
        count = settings.num_candidates if num_candidates is None else num_candidates
        model: Any = self.prior
        text = text_embeds.to(self.device, model.dtype)
        words = None if encodings is None else encodings.to(self.device, model.dtype)
        captions = (
            text.repeat_interleave(count, 0),
            None if words is None else words.repeat_interleave(count, 0),
        )
        z_0 = self._chain(captions, (steps, scale), generator)
        candidates = F.normalize(z_0, dim=-1).view(len(text), count, -1).transpose(0, 1)
        embeds = best_of(candidates, text) if count > 1 else candidates[0]
        return PriorOutput(image_embeds=embeds) if return_dict else (embeds,)

    def _chain(
        self,
        captions: tuple[Tensor, Tensor | None],
        steps_scale: tuple[int, float],
        generator: torch.Generator | None,
    ) -> Tensor:
        """Run the scheduler; each caption is encoded once, and the null caption once if guidance needs it."""
        (text, words), (steps, scale) = captions, steps_scale
        model: Any = self.prior
        scheduler: Any = self.scheduler
        scheduler.set_table(model.shift_table)
        scheduler.set_timesteps(steps, device=text.device)
        cluster = self._clusters(text, generator)
        caption = model.network.prefix(text, words)
        nothing = None if scale == 1 else _nothing(model, text, words)
        z = scheduler.start(self._noise(text.shape[:1], generator) * scheduler.init_noise_sigma, cluster)
        with_bar: Any = self.progress_bar
        for tau in with_bar(scheduler.timesteps):
            t = torch.full_like(cluster, int(tau) + 1)
            prediction = model(caption, z, t, cluster)
            if nothing is not None:
                prediction = guide(prediction, model(nothing, z, t, cluster), scale)
            z = scheduler.step(prediction, tau, z, cluster, generator, return_dict=False)[0]
        return z

    def _clusters(self, text: Tensor, generator: torch.Generator | None) -> Tensor:
        """Choose one cluster per sample; a random rule takes its uniform draw from the generator."""
        model: Any = self.prior
        choice, table = model.choice, model.shift_table
        if table.num_clusters == 1:
            return torch.zeros(len(text), dtype=torch.int64, device=text.device)
        check_finite(text)
        learned = choice.is_learned
        scores = model.network.choice_logits(text) if learned else choice.scores(text, table)
        u = None
        if choice.is_drawn:
            source = text.device if generator is None else generator.device
            u = torch.rand(len(text), generator=generator, device=source).to(text.device)
        return choice.choose(scores, u)

    def _noise(self, batch: torch.Size, generator: torch.Generator | None) -> Tensor:
        """Draw noise on the generator's device, so that a seed gives the same sample on every device."""
        source = self.device if generator is None else generator.device
        model: Any = self.prior
        shape = (*batch, model.shift_table.dim)
        return torch.randn(shape, generator=generator, device=source).to(self.device)


def _nothing(model: Any, text: Tensor, words: Tensor | None) -> Any:
    """Encode the null caption once for a whole batch."""
    dropped = torch.ones(1, dtype=torch.bool, device=text.device)
    return model.network.prefix(text[:1], None if words is None else words[:1], dropped).expand(len(text))
