"""A prior as diffusers components, of which an exported folder consists. This module does not depend on where the weights came from."""

from dataclasses import dataclass
from os import PathLike
from typing import Any, Self, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int
from torch import Tensor

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.shifted import ShiftTable
from corgi.models.prior import Prefix, Prior, PriorConfig


@dataclass(frozen=True)
class TableShape:
    """Size and form of a shift table."""

    num_clusters: int
    dim: int
    rank: int = 0
    full: bool = False

    @classmethod
    def of(cls, table: ShiftTable) -> Self:
        """Return the shape of a table."""
        rank = 0 if table.factor is None else table.factor.shape[2]
        return cls(table.num_clusters, table.dim, rank, table.cholesky is not None)

    def blank(self) -> ShiftTable:
        """Return a table of this shape, whose values are loaded later."""
        k, dim = self.num_clusters, self.dim
        factor = torch.zeros(k, dim, self.rank) if self.rank else None
        cholesky = torch.eye(dim).repeat(k, 1, 1) if self.full else None
        return ShiftTable(torch.zeros(k, dim), torch.ones(k, dim), factor, cholesky)


class PriorModel(ModelMixin, ConfigMixin):
    """Network, shift table and cluster choice: all parts of a prior except the scheduler.

    `save_pretrained` writes safetensors that contain (mu, Sigma) and counts with the weights. `facts` says what the prior
    was made from: towers, normalisation, data.
    """

    @register_to_config
    def __init__(
        self,
        sizes: dict[str, Any],
        table_shape: dict[str, Any],
        choice_rule: dict[str, Any],
        facts: dict[str, Any],
    ) -> None:
        """Build an empty prior of these sizes; arguments are JSON."""
        super().__init__()
        self.shift_table = TableShape(**table_shape).blank()
        self.network = Prior(PriorConfig(**sizes), TableShape(**table_shape).blank())
        self.choice = ClusterChoice(**choice_rule)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str] | None, **options: object
    ) -> Self:
        """Load as diffusers does, then compute what the tables do not store."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, **options)
        model = cast("Self", loaded[0] if isinstance(loaded, tuple) else loaded)
        for table in (model.shift_table, model.network.table):
            if table is not None:
                table.refresh()
        return model.eval()

    def forward(
        self,
        prefix: Prefix,
        z_t: Float[Tensor, "batch *levels dim"],
        t: Int[Tensor, "batch *levels"],
        cluster: Int[Tensor, "batch *levels"],
    ) -> Float[Tensor, "batch *levels dim"]:
        """Return the network's prediction for captions already encoded by `network.prefix`; t counts 1..T."""
        return self.network.denoise(prefix, z_t, t, cluster)
