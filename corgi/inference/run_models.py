"""Which committed shards a run paints with, and the digest that names its models. Nothing here loads one."""

from collections.abc import Mapping, Sequence

from corgi.settings.section import digest
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run

STAGES = ("embed", "shift", "prior", "autoencoder", "decoder")
Shards = Mapping[str, Sequence[ShardManifest]]
"""Committed shards by stage."""


def shards_of(run: Run) -> dict[str, list[ShardManifest]]:
    """Return the shards that painting reads, by stage.

    Raises:
        InputError: the run has not finished its prior or decoder.

    """
    names = (*STAGES, *(("tower",) if "tower" in run.stages() else ()))
    return {name: run.shards(name) for name in names}


def models_digest(shards: Shards) -> str:
    """Return the digest of the prior, decoder and autoencoder: what they learned, and from what."""
    return digest([shards[name][0].digest for name in ("prior", "decoder", "autoencoder")])
