"""How a caption chooses its cluster: plug-in, Monte-Carlo, drawn from a softmax, or scored by a learned head (eq. 11, 21, 22)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.philox import CHAIN, MAX_DRAWS, Stream, normals, seeds_of, uniforms
from corgi.diffusion.shifted import ShiftTable, first_largest
from corgi.names import ChoiceRule

CHOICE_DRAW = MAX_DRAWS - 1
"""Index of the draw that chooses the cluster; no chain has that many steps."""


@dataclass(frozen=True)
class ClusterChoice:
    """The rule by which a cluster is chosen, and its parameters.

    text: argmax_i cos(mu_i, y). monte_carlo: argmax_i of the mean cosine of y and draws of N(mu_i, Sigma_i / c^2).
    soft: a draw from softmax(cos(mu_i, y) / temperature). learned: argmax of a head's logits; learned_soft: a draw
    from their softmax.
    """

    rule: ChoiceRule = "text"
    num_draws: int = 1024
    """Number of draws per cluster in the Monte-Carlo rule."""
    temperature: float = 0.05
    """Temperature of the soft rule."""
    scale: float = 1.0
    """c of the table: the Monte-Carlo rule draws with the unscaled standard deviation."""

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if self.rule not in get_args(ChoiceRule):
            raise ValueError(f"cluster choice {self.rule!r} is not one of {', '.join(get_args(ChoiceRule))}")
        if self.num_draws < 1 or self.temperature <= 0 or self.scale <= 0:
            raise ValueError("draws, temperature and scale of a cluster choice must be positive")

    @property
    def is_learned(self) -> bool:
        """Return whether a head scores the clusters; training then uses the picture's own cluster."""
        return self.rule.startswith("learned")

    @property
    def is_drawn(self) -> bool:
        """Return whether the index is drawn, so that two samples of one caption may differ."""
        return self.rule in ("soft", "learned_soft")

    def scores(self, text: Float[Tensor, "batch dim"], table: ShiftTable) -> Float[Tensor, "batch k"]:
        """Return scores of the clusters for a rule without a head, float64; for the soft rule they are logits.

        Raises:
            ValueError: the rule needs a head.

        """
        if self.is_learned:
            raise ValueError(f"the rule {self.rule!r} takes its scores from a head")
        mean = table.mean.double()
        direction = (
            mean_direction(table, self.num_draws, self.scale)
            if self.rule == "monte_carlo"
            else F.normalize(mean, dim=-1)
        )
        cosine = F.normalize(text.double(), dim=-1) @ direction.mT
        return cosine / self.temperature if self.rule == "soft" else cosine

    def choose(
        self, scores: Float[Tensor, "batch k"], u: Float[Tensor, "batch"] | None = None
    ) -> Int[Tensor, "batch"]:
        """Choose a cluster by its score: the largest, with the lowest index on ties, or a draw at `u` in [0, 1)."""
        if not self.is_drawn:
            return first_largest(scores.double())
        if u is None:
            raise ValueError(f"the rule {self.rule!r} draws: it needs one uniform draw in [0, 1) per sample")
        return draw_index(scores, u)


def mean_direction(table: ShiftTable, num_draws: int, scale: float = 1.0) -> Float[Tensor, "k dim"]:
    """Mean of z/|z| over draws z ~ N(mu_i, Sigma_i / scale^2), float64, so that its dot product with a unit y is the mean cosine.

    Cluster i's draws depend only on i and its own parameters, and are antithetic pairs around mu_i. The table caches the
    result until it is moved or loaded again, since drawing takes seconds for many clusters.
    """
    key = (num_draws, scale)
    if key not in table.directions:
        rows = [_mean_direction(table, k, num_draws, scale) for k in range(table.num_clusters)]
        table.directions[key] = torch.stack(rows)
    return table.directions[key]


def _mean_direction(table: ShiftTable, k: int, num_draws: int, scale: float) -> Float[Tensor, "dim"]:
    half = max(1, num_draws // 2)
    pair = torch.arange(half, device=table.mean.device)
    eps = normals(Stream(torch.full_like(pair, k), pair, CHAIN, CHOICE_DRAW), table.dim).double()
    step = table.apply_L(eps, torch.full_like(pair, k)) / scale
    mean = table.mean[k].double()
    return F.normalize(torch.cat([mean + step, mean - step]), dim=-1).mean(dim=0)


def draw_index(scores: Float[Tensor, "batch k"], u: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
    """Index i where the cumulative softmax of the scores passes `u` (eq. 22); float64."""
    passed = scores.double().softmax(dim=-1).cumsum(dim=-1) <= u.double()[:, None]
    return passed.sum(dim=-1).clamp(max=scores.shape[1] - 1)


def choice_places(seeds: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch"]:
    """One uniform draw in [0, 1) per seed, independent of every draw of its chain."""
    seed = seeds_of(seeds, device)
    return uniforms(Stream(seed, torch.zeros_like(seed), CHAIN, CHOICE_DRAW)).double()
