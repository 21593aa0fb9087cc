"""Which committed shards a run paints with, and the digest that identifies its models. Nothing here loads a model."""

from collections.abc import Mapping, Sequence

from corgi.names import UPSAMPLERS
from corgi.settings.section import digest
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run

STAGES = ("embed", "shift", "prior", "autoencoder", "decoder")
"""Stages that painting always reads; the tower and the cascade's steps are read too if the run has them."""
Shards = Mapping[str, Sequence[ShardManifest]]
"""Committed shards by stage."""


def shards_of(run: Run) -> dict[str, list[ShardManifest]]:
    """Return the shards that painting reads, by stage.

    Raises:
        InputError: the run has not finished its prior, its decoder or a step of its cascade.

    """
    order = run.facts.get("order", [])
    tower = ("tower",) if "tower" in run.stages() else ()
    names = (*STAGES, *tower, *(name for name in UPSAMPLERS if name in order))
    return {name: run.shards(name) for name in names}


def cascade_of(shards: Shards) -> list[ShardManifest]:
    """Return the shards of the cascade's steps, in order; empty for a run without a cascade."""
    return [shards[name][0] for name in UPSAMPLERS if name in shards]


def models_digest(shards: Shards) -> str:
    """Return the digest of prior, decoder, autoencoder and the cascade's steps: of their weights and of their inputs."""
    models = [shards[name][0] for name in ("prior", "decoder", "autoencoder")]
    return digest([shard.digest for shard in (*models, *cascade_of(shards))])
