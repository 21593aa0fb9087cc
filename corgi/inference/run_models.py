"""Which committed shards a run paints with, and the digest that names its models. Nothing here loads one."""

from collections.abc import Mapping, Sequence

from corgi.names import UPSAMPLERS
from corgi.settings.section import digest
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run

STAGES = ("embed", "shift", "prior", "autoencoder", "decoder")
"""Stages that painting reads; those of the tower and of a cascade's steps where the run has them."""
Shards = Mapping[str, Sequence[ShardManifest]]
"""Committed shards by stage."""


def shards_of(run: Run) -> dict[str, list[ShardManifest]]:
    """Return the shards that painting reads, by stage.

    Raises:
        InputError: the run has not finished its prior, its decoder or a step of its cascade.

    """
    asked = run.facts.get("order", [])
    beside = ("tower",) if "tower" in run.stages() else ()
    names = (*STAGES, *beside, *(name for name in UPSAMPLERS if name in asked))
    return {name: run.shards(name) for name in names}


def cascade_of(shards: Shards) -> list[ShardManifest]:
    """Return the shards of the cascade's steps, in order; none where the run has no cascade."""
    return [shards[name][0] for name in UPSAMPLERS if name in shards]


def models_digest(shards: Shards) -> str:
    """Return the digest of prior, decoder, autoencoder and the cascade's steps: what they learned, and from what."""
    models = [shards[name][0] for name in ("prior", "decoder", "autoencoder")]
    return digest([made.digest for made in (*models, *cascade_of(shards))])
