"""The arms of the comparison: one network, data, steps and loss; each arm is one choice of (mu, Sigma) and of what goes with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from corgi.diffusion.choice import ChoiceRule
from corgi.diffusion.shifted import ShiftTable
from corgi.settings.compare import ArmName, CompareSettings
from corgi.settings.models import PriorSettings


@dataclass(frozen=True)
class Arm:
    """What one arm is, beside what all share."""

    table: Literal["ddpm", "dalle2", "global", "clusters", "low_rank"]
    """(0, I); (0, I/d); the global mean and standard deviation; those of k clusters, diagonal or low rank + diagonal."""
    k: int = 1
    c: float | Literal["matched"] = 1.0
    """Factor of the standard deviation; matched: as found in the space."""
    choice: ChoiceRule = "text"
    cluster_token: bool = False
    raw: bool = False
    """The network reads z_t and answers z_0 as they are, not whitened by (mu, Sigma)."""
    one_pass: bool = False
    """Trained at t = T alone and sampled in one step: a regression on the caption and noise."""
    contrastive: bool = False
    """With ECLIPSE's contrastive loss (arXiv 2312.04655)."""
    candidates: tuple[int, ...] = (1,)
    """Candidates a caption drawn, the one of largest text cosine kept; each number is judged by itself."""


ARMS: Mapping[ArmName, Arm] = {
    "ddpm": Arm("ddpm"),
    "dalle2": Arm("dalle2", candidates=(1, 2)),
    "standardised": Arm("global"),
    "standardised-raw": Arm("global", raw=True),
    "standardised-matched": Arm("global", c="matched"),
    "k16": Arm("clusters", 16),
    "k16-token": Arm("clusters", 16, cluster_token=True),
    "k16-c2": Arm("clusters", 16, c=2.0),
    "k16-c5": Arm("clusters", 16, c=5.0),
    "k16-matched": Arm("clusters", 16, c="matched"),
    "k16-head": Arm("clusters", 16, choice="learned"),
    "k16-soft": Arm("clusters", 16, choice="learned_soft"),
    "k16-soft-raw": Arm("clusters", 16, choice="learned_soft", raw=True),
    "k16-soft-matched": Arm("clusters", 16, c="matched", choice="learned_soft"),
    "k16-soft-low-rank": Arm("low_rank", 16, choice="learned_soft"),
    "k64": Arm("clusters", 64),
    "k64-soft": Arm("clusters", 64, choice="learned_soft"),
    "regression": Arm("global", one_pass=True),
    "eclipse": Arm("global", one_pass=True, contrastive=True),
}
"""`standardised` is shifted diffusion with k = 1: one configuration, named once."""


def cluster_counts(settings: CompareSettings) -> list[int]:
    """Return every k an arm of the settings needs, 1 among them."""
    return sorted({1, *(ARMS[name].k for name in settings.arms)})


def low_rank_counts(settings: CompareSettings) -> list[int]:
    """Return every k for which an arm of the settings needs a low-rank Sigma."""
    return sorted({ARMS[name].k for name in settings.arms if ARMS[name].table == "low_rank"})


def scale_of(arm: Arm, statistics: Mapping[str, Tensor]) -> float:
    """Return c: the arm's own, or the one matched in the space for the way it chooses its clusters."""
    if arm.c != "matched":
        return float(arm.c)
    rule = "own" if arm.choice.startswith("learned") else "text"
    return float(statistics[f"k{arm.k}.matched_{rule}"])


def table_of(arm: Arm, statistics: Mapping[str, Tensor]) -> ShiftTable:
    """Return an arm's (mu, Sigma) out of the statistics of a space."""
    dim = statistics["k1.mean"].shape[1]
    if arm.table in ("ddpm", "dalle2"):
        return ShiftTable.ddpm(dim) if arm.table == "ddpm" else ShiftTable.dalle2(dim)
    c, key = scale_of(arm, statistics), f"k{arm.k}"
    mean, count = statistics[f"{key}.mean"], statistics[f"{key}.count"]
    if arm.table == "low_rank":
        scale, factor = statistics[f"{key}.rest"], statistics[f"{key}.factor"]
        return ShiftTable(mean, c * scale, factor=c * factor, count=count)
    return ShiftTable.clusters(mean, statistics[f"{key}.scale"], c, count=count)


def prior_settings(arm: Arm, settings: CompareSettings) -> PriorSettings:
    """Return the arm as settings of the prior stage, which trains it."""
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
    """Return ECLIPSE's contrastive term: the cross entropy of each answer's own caption among those of the batch.

    Equal captions of a batch count as different, as they do in CLIP's training.
    """
    logits = F.normalize(answer, dim=-1) @ F.normalize(text, dim=-1).mT / temperature
    return F.cross_entropy(logits, torch.arange(len(text), device=text.device))
