"""Which CLIP models a recipe means; light, so that finished work is recognised without torch."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import Store

OWN_TOWER = "own"


def tower_refs(
    store: Store, embed_settings: EmbedSettings, tower_manifest: ShardManifest | None
) -> tuple[TowerRef, ...]:
    """Return the recipe's towers, or the trained one (name "own") whose files the tower stage committed.

    Paths of local files come back absolute, since a Ray worker's folder is another one.
    """
    if embed_settings.towers or tower_manifest is None:
        return tuple(_absolute(ref) for ref in embed_settings.towers)
    config = str(store.path(tower_manifest, "config"))
    checkpoint = str(store.path(tower_manifest, "checkpoint"))
    return (TowerRef(name=OWN_TOWER, model=OWN_TOWER, pretrained=checkpoint, config=config),)


def model_shard(manifests: Iterable[ShardManifest]) -> ShardManifest | None:
    """Return the tower stage's shard that holds the model; its other shards hold frozen features."""
    return next((m for m in manifests if any(entry.table == "checkpoint" for entry in m.files)), None)


def fingerprint(recipe: Any) -> dict[str, str]:
    """Return the sha256 of every local checkpoint and config the recipe names: what a path cannot say."""
    found = {}
    for ref in recipe.embed.towers:
        for name in (ref.pretrained, ref.config):
            if name is not None and Path(name).is_file():
                with Path(name).open("rb") as handle:
                    found[f"{ref.name} {Path(name).name}"] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def _absolute(ref: TowerRef) -> TowerRef:
    paths = {}
    for field in ("pretrained", "config"):
        value = getattr(ref, field)
        if value is not None and Path(value).is_file():
            paths[field] = str(Path(value).absolute())
    return ref.model_copy(update=paths)
