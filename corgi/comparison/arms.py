"""The arms of the comparison: all have the same network, data, steps and loss; each is one choice of (mu, Sigma) and of the settings that go with it."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corgi.baselines import BASELINES, Baseline
from corgi.diffusion.baseline_tables import TABLES, Moments, SpaceMoments
from corgi.diffusion.shifted import ShiftTable
from corgi.settings.compare import CompareSettings
from corgi.settings.models import PriorSettings


def cluster_counts(settings: CompareSettings) -> list[int]:
    """Return every number of clusters k that the settings' arms need; 1 is always included."""
    return sorted({1, *(_num_clusters(BASELINES[name]) for name in settings.arms)})


def low_rank_counts(settings: CompareSettings) -> list[int]:
    """Return every k for which the settings' arms need a low-rank Sigma."""
    return sorted(
        {_num_clusters(BASELINES[name]) for name in settings.arms if BASELINES[name].table == "low_rank"}
    )


def scale_of(arm: Baseline, statistics: Mapping[str, Tensor]) -> float:
    """Return c: the arm's own, or the one matched in the space for the arm's cluster choice."""
    if arm.c != "matched":
        return float(arm.c)
    rule = "own" if arm.choice.startswith("learned") else "text"
    return float(statistics[f"k{_num_clusters(arm)}.matched_{rule}"])


def moments_of(arm: Baseline, statistics: Mapping[str, Tensor]) -> SpaceMoments:
    """Return the moments of a space that an arm needs: of all rows, and of as many clusters as the arm has."""
    key = f"k{_num_clusters(arm)}"
    mean, count = statistics[f"{key}.mean"], statistics[f"{key}.count"]
    if arm.table == "low_rank":
        clusters = Moments(mean, statistics[f"{key}.rest"], count, statistics[f"{key}.factor"])
    else:
        clusters = Moments(mean, statistics[f"{key}.scale"], count)
    return SpaceMoments(
        Moments(statistics["k1.mean"], statistics["k1.scale"], statistics["k1.count"]), clusters
    )


def table_of(arm: Baseline, statistics: Mapping[str, Tensor]) -> ShiftTable:
    """Return an arm's (mu, Sigma) from the statistics of a space."""
    return TABLES[arm.table](moments_of(arm, statistics), scale_of(arm, statistics))


def _num_clusters(arm: Baseline) -> int:
    assert arm.k is not None  # the run's own baseline, which has no k, is not an arm
    return arm.k


def prior_settings(arm: Baseline, settings: CompareSettings) -> PriorSettings:
    """Return the arm as settings of the prior, with which it is trained."""
    shared = (
        "width",
        "depth",
        "heads",
        "schedule",
        "loss_weight",
        "noise_levels_per_caption",
        "coarse_caption_share",
    )
    return PriorSettings(
        variants=("shifted",),
        cluster_token=arm.cluster_token,
        standardise=not arm.raw,
        cluster_choice=arm.choice,
        sample_steps=1 if arm.one_pass else 8,
        training=settings.training,
        **{name: getattr(settings, name) for name in shared},
    )


def info_nce(
    answer: Float[Tensor, "batch dim"], text: Float[Tensor, "batch dim"], temperature: float
) -> Float[Tensor, ""]:
    """Return ECLIPSE's contrastive term: the cross entropy of each prediction's own caption among those of the batch.

    Equal captions of a batch count as different, as they do in CLIP's training.
    """
    logits = F.normalize(answer, dim=-1) @ F.normalize(text, dim=-1).mT / temperature
    return F.cross_entropy(logits, torch.arange(len(text), device=text.device))
