"""The baseline priors: one list, from which `prior.variants` and `compare.arms` choose. It can be imported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from corgi.names import ChoiceRule

TableName = Literal["ddpm", "dalle2", "global", "clusters", "low_rank"]
"""Filled by `corgi.diffusion.baseline_tables.TABLES`."""


@dataclass(frozen=True)
class Baseline:
    """One choice of (mu, Sigma) and of its options; network, data, steps and loss are the same for all baselines."""

    table: TableName
    """In this order: (0, I); (0, I/d); the global mean and standard deviation; those of k clusters, diagonal, or low rank + diagonal."""
    k: int | None = 1
    """Number of clusters; None: clusters and c of the recipe's shift stage, with the cluster choice of the recipe's prior."""
    c: float | Literal["matched"] = 1.0
    """Factor of the standard deviation; matched: estimated from the embedding space."""
    choice: ChoiceRule = "text"
    cluster_token: bool = False
    raw: bool = False
    """The network reads z_t and predicts z_0 in the original coordinates, not whitened by (mu, Sigma)."""
    one_pass: bool = False
    """Trained only at t = T and sampled in one step: a regression on the caption and noise."""
    contrastive: bool = False
    """With ECLIPSE's contrastive loss (arXiv 2312.04655)."""
    candidates: tuple[int, ...] = (1,)
    """Candidates drawn per caption, of which the one with the largest cosine to the text is kept; each number is evaluated separately."""
    by_default: bool = True
    """Whether it is in the default of `compare.arms`. False for a baseline added later, so that finished comparisons keep their keys."""

    @property
    def is_of_the_run(self) -> bool:
        """Return whether the recipe's shift and prior sections describe it."""
        return self.k is None

    @property
    def needs_the_shift_stage_alone(self) -> bool:
        """Return whether the prior stage can train it: its (mu, Sigma) can be computed from what the shift stage commits."""
        return self.is_of_the_run or (self.k == 1 and self.c == 1.0 and not self.one_pass)


BASELINES: Mapping[str, Baseline] = {
    "shifted": Baseline("clusters", k=None),
    "ddpm": Baseline("ddpm"),
    "dalle2": Baseline("dalle2", candidates=(1, 2)),
    "standardised": Baseline("global"),
    "standardised-raw": Baseline("global", raw=True),
    "standardised-matched": Baseline("global", c="matched"),
    "k16": Baseline("clusters", 16),
    "k16-token": Baseline("clusters", 16, cluster_token=True),
    "k16-c2": Baseline("clusters", 16, c=2.0),
    "k16-c5": Baseline("clusters", 16, c=5.0),
    "k16-matched": Baseline("clusters", 16, c="matched"),
    "k16-head": Baseline("clusters", 16, choice="learned"),
    "k16-soft": Baseline("clusters", 16, choice="learned_soft"),
    "k16-soft-raw": Baseline("clusters", 16, choice="learned_soft", raw=True),
    "k16-soft-matched": Baseline("clusters", 16, c="matched", choice="learned_soft"),
    "k16-soft-low-rank": Baseline("low_rank", 16, choice="learned_soft"),
    "k64": Baseline("clusters", 64),
    "k64-soft": Baseline("clusters", 64, choice="learned_soft"),
    "regression": Baseline("global", one_pass=True),
    "eclipse": Baseline("global", one_pass=True, contrastive=True),
}
"""`standardised` is shifted diffusion with k = 1: one configuration, named once."""

VARIANTS = tuple(name for name, baseline in BASELINES.items() if baseline.needs_the_shift_stage_alone)
"""What `prior.variants` may name."""

ARMS = tuple(name for name, baseline in BASELINES.items() if not baseline.is_of_the_run)
"""What `compare.arms` may name."""
