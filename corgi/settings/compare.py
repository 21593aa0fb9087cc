"""Settings of the comparison of priors: arms, embedding spaces, training length, number of seeds, and evaluated sampler steps."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corgi.baselines import ARMS, BASELINES
from corgi.names import SamplerName
from corgi.settings.section import OneOf, Section, neutral
from corgi.settings.training import TrainingSettings

SpaceName = Literal["own", "off_centre"]
ArmName = Annotated[str, OneOf(ARMS)]
"""A prior that is compared; corgi/baselines.py defines each."""


class CompareSettings(Section):
    """The comparison: every arm has the same network, data, steps and loss; only (mu, Sigma) and what an arm's definition names differ."""

    spaces: tuple[SpaceName, ...] = Field(default=("own", "off_centre"), min_length=1)
    """own: the run's embeddings, unchanged. off_centre: the same with a fixed direction added (synthetic, and labelled so): the
    embeddings of real CLIP models have a mean far from zero, those of a small tower trained by the recipe need not."""
    offset: float = Field(default=0.8, gt=0, lt=1)
    """Weight of that direction; the original embedding has weight sqrt(1 - offset^2)."""
    arms: tuple[ArmName, ...] = Field(
        default=tuple(name for name in ARMS if BASELINES[name].by_default), min_length=1
    )
    """Arms that are compared; each is trained once per space and seed."""
    num_seeds: int = Field(default=3, ge=1, le=100)
    """Trainings of each arm; intervals need at least 2."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the first training; the others have the next integers."""
    width: int = Field(default=128, ge=32)
    """Transformer width."""
    depth: int = Field(default=4, ge=1)
    """Transformer layers."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    schedule: Literal["linear", "cosine"] = "linear"
    """Noise schedule."""
    loss_weight: Literal["uniform", "one_minus_abar", "snr", "min_snr", "p2"] = "uniform"
    """Weight of the x0 error."""
    noise_levels_per_caption: int = Field(default=4, ge=1, le=64)
    """Noise levels drawn for each caption of a batch."""
    coarse_caption_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the drawn captions that are coarse; with full captions alone every prior is nearly deterministic."""
    contrastive_weight: float = Field(default=0.2, ge=0)
    """Weight of the eclipse arm's contrastive loss."""
    contrastive_temperature: float = Field(default=0.07, gt=0)
    """Its temperature."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the low-rank arm's Sigma_k."""
    shrinkage_count: float = Field(default=100.0, ge=0)
    """n_0 of the clusters' variances."""
    max_fit_rows: int = Field(default=200_000, ge=2)
    """Largest number of train pictures that the statistics are fitted on, whole shards in order."""
    training: TrainingSettings = TrainingSettings(
        num_steps=500,
        global_batch=64,
        lr=1e-3,
        ema_decay=0.99,
        warmup_steps=50,
        zero_stage=0,
        precision="fp32",
        num_workers=2,
        checkpoint_every_steps=1_000_000,
        log_every_steps=100,
    )
    """The training of each arm."""
    num_actors: int = neutral(2, ge=1, le=1024)
    """Processes that fit the spaces' statistics."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.training.zero_stage != 0:
            raise ValueError("arms that learn their cluster choice need training.zero_stage=0")
        return self


class ScoreSettings(Section):
    """How the arms are evaluated; after a change nothing is trained again."""

    samplers: tuple[SamplerName, ...] = Field(
        default=("ancestral", "ancestral_small", "ddim", "dpm++"), min_length=1
    )
    """Samplers with which each diffusion arm is evaluated."""
    steps: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(
        default=(1, 2, 4, 8, 16, 64), min_length=1
    )
    """Numbers of sampler steps at which it is evaluated; a one-pass arm only at 1."""
    samples_per_caption: int = Field(default=8, ge=2, le=256)
    """Samples per coarse caption for Frechet distance, MMD and spread."""
    min_word_pictures: int = Field(default=6, ge=2)
    """Smallest number of pictures of a coarse caption that is scored."""
    max_captions: int = Field(default=1000, ge=2)
    """Largest number of held-out captions scored."""
    max_pictures: int = Field(default=20_000, ge=2)
    """Largest number of pictures read for scoring, whole shards in order."""
    softmax_temperature: float = Field(default=0.05, gt=0)
    """Temperature of the softmax-average reference."""
    num_actors: int = neutral(2, ge=1, le=1024)
    """Processes that score."""
    gpus_per_actor: float = neutral(0.0, ge=0)
    """GPUs that Ray reserves for each of them."""
