"""A prior's sizes as its settings determine them, for the network and for --plan. Does not import torch."""

from corgi.baselines import BASELINES
from corgi.models.prior_config import PriorConfig
from corgi.settings.models import PriorSettings


def config_of(settings: PriorSettings, dim: int, num_clusters: int, variant: str) -> PriorConfig:
    """Return a variant's sizes for embeddings of `dim` dimensions. Only the run's own variant may read, choose or learn clusters."""
    baseline = BASELINES[variant]
    shifted = baseline.is_of_the_run
    learned = shifted and settings.cluster_choice.startswith("learned") and num_clusters > 1
    return PriorConfig(
        dim=dim,
        text_dim=dim,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        num_text_tokens=settings.num_text_tokens,
        encoding_dim=settings.encoding_dim,
        cluster_token=settings.cluster_token and shifted,
        causal=settings.causal,
        rotary=settings.rotary,
        standardise=settings.standardise and not baseline.raw,
        prediction=settings.prediction,
        choice_clusters=num_clusters if learned else 0,
        learned_shift=settings.learned_shift and shifted,
        activation_checkpointing=settings.activation_checkpointing,
    )


def num_weights(config: PriorConfig, num_clusters: int) -> int:
    """Return the number of trained weights: the network's, and mean and scale of each cluster if they are learned."""
    return config.num_parameters() + 2 * num_clusters * config.dim * config.learned_shift
