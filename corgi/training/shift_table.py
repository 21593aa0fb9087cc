"""The (mu, Sigma) of a prior: each baseline derives its own from the committed shift parameters."""

from collections.abc import Mapping

from safetensors.torch import load_file
from torch import Tensor

from corgi.baselines import BASELINES
from corgi.diffusion.baseline_tables import TABLES, Moments, SpaceMoments
from corgi.diffusion.shifted import ShiftTable
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import Store


def moments_of(shift: Mapping[str, Tensor]) -> SpaceMoments:
    """Return the moments in a shift file, in float32."""
    roots = {name: shift[name].float() for name in ("factor", "cholesky") if name in shift}
    return SpaceMoments(
        Moments(shift["global_mean"].float()[None], shift["global_scale"].float()[None]),
        Moments(shift["mean"].float(), shift["scale"].float(), shift["count"].long(), **roots),
    )


def table_of(variant: str, shift: Mapping[str, Tensor], c: float) -> ShiftTable:
    """Return (mu, Sigma) of a variant; nothing else differs between variants."""
    baseline = BASELINES[variant]
    return TABLES[baseline.table](moments_of(shift), c if baseline.is_of_the_run else 1.0)


def shift_scale(shift: ShardManifest) -> float:
    """Return the scale c of the committed shift parameters: the setting, or the value matched to the data."""
    scale = shift.settings["shift"]["scale"]
    return float(shift.facts["scale"] if scale == "matched" else scale)


def shift_table(store: Store, shift: ShardManifest, variant: str) -> ShiftTable:
    """Return a variant's (mu, Sigma) from the committed shift parameters."""
    return table_of(variant, load_file(store.path(shift, "shift")), shift_scale(shift))
