"""The (mu, Sigma) of a prior: each baseline is one choice of them out of the committed shift parameters."""

from collections.abc import Mapping

from safetensors.torch import load_file
from torch import Tensor

from corgi.diffusion.shifted import ShiftTable
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import Store


def table_of(variant: str, shift: Mapping[str, Tensor], c: float) -> ShiftTable:
    """Return (mu, Sigma) of a variant: one choice in the same code, nothing else differs."""
    dim = shift["mean"].shape[1]
    if variant == "shifted":
        mean, scale, count = shift["mean"].float(), shift["scale"].float(), shift["count"].long()
        roots = {name: c * shift[name].float() for name in ("factor", "cholesky") if name in shift}
        if roots:
            return ShiftTable(mean, c * scale, count=count, **roots)
        return ShiftTable.clusters(mean, scale, c, count=count)
    if variant == "standardised":
        return ShiftTable.standardised(shift["global_mean"].float(), shift["global_scale"].float())
    return ShiftTable.dalle2(dim) if variant == "dalle2" else ShiftTable.ddpm(dim)


def shift_scale(shift: ShardManifest) -> float:
    """Return c of the committed shift parameters: the setting, or what was matched in the data."""
    chosen = shift.settings["shift"]["scale"]
    return float(shift.facts["scale"] if chosen == "matched" else chosen)


def shift_table(store: Store, shift: ShardManifest, variant: str) -> ShiftTable:
    """Return a variant's (mu, Sigma) out of the committed shift parameters."""
    return table_of(variant, load_file(store.path(shift, "shift")), shift_scale(shift))
