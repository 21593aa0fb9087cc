"""The tower stage's frozen features, reused by embed: for a picture that has them, only the trained heads are computed."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor, nn

from corgi.clip.earlier import KnownVectors
from corgi.clip.towers import Tower, unit_and_norm
from corgi.clip.vectors import Vectors, matrix
from corgi.flow.context import Context
from corgi.settings.clip import TRAINED, TowerSettings
from corgi.settings.errors import StorageError
from corgi.settings.section import digest
from corgi.tables.manifest import ShardEntry, ShardManifest
from corgi.tables.store import Store

_FEATURE_SETTINGS = ("image_backbone", "text_backbone", "image_size", "context_length")


def feature_shard(download: ShardManifest | ShardEntry) -> str:
    """Return the name of the shard with a download shard's features."""
    return f"features-{download.shard}"


def feature_key(settings: TowerSettings, version: int, download: ShardManifest | ShardEntry) -> str:
    """Return the key of a download shard's features; it does not depend on settings that only affect the heads."""
    chosen = {name: getattr(settings, name) for name in _FEATURE_SETTINGS}
    return digest(
        {
            "shard": feature_shard(download),
            "version": version,
            "settings": chosen,
            "input": download.digest,
        }
    )


def features_of(context: Context) -> dict[str, object] | None:
    """Return as JSON what is needed to find the features that embed can use; None unless its only tower is the trained one, in fp32."""
    settings, tower = context.recipe.embed, context.recipe.tower
    kinds = [ref.pretrained for ref in settings.towers] or [TRAINED]
    if tower is None or "tower" not in context.inputs or kinds != [TRAINED] or settings.precision != "fp32":
        return None
    return {"settings": tower.model_dump(mode="json"), "version": context.inputs["tower"].version}


class FrozenFeatures:
    """Vectors of pictures and captions, computed from their committed features by the heads of a tower.

    Features are stored as half floats, as vectors are: some components differ in the last bit from those that the whole tower computes.
    """

    def __init__(self, tower: Tower, settings: TowerSettings, version: int) -> None:
        """Take a tower of the run's trained architecture, and the settings and version that its features' keys are made of."""
        self._tower, self._settings, self._version = tower, settings, version

    @classmethod
    def of_tower(cls, tower: Tower, found: Mapping[str, object]) -> Self:
        """Return the features that `features_of` describes."""
        return cls(tower, TowerSettings.model_validate(found["settings"]), int(str(found["version"])))

    def known(self, store: Store, download: str, captions: pa.Table) -> KnownVectors:
        """Return the vectors of those pictures and full captions of a download shard that have features; `download` is its manifest's path.

        `captions` are the shard's (uid, ordinal, caption). Damaged or missing features give no vectors.

        Raises:
            StorageError: the storage does not respond.

        """
        key = feature_key(self._settings, self._version, store.read_shard(download))
        try:
            shard = store.shard("tower", key)
            if shard is None:
                return KnownVectors()
            pictures = store.read(shard, "pictures", ["uid", "feature"])
            spoken = store.read(shard, "captions", ["uid", "ordinal", "feature"])
        except StorageError as error:
            if error.may_pass:
                raise
            return KnownVectors()
        spoken = _first_of_each(spoken, captions)
        model = self._tower.model
        return KnownVectors(
            self._through(model.get_submodule("visual.head"), pictures, "uid", "image"),
            self._through(model.get_submodule("text.proj"), spoken, "caption", "text"),
        )

    @torch.no_grad()
    def _through(self, head: nn.Module, features: pa.Table, key: str, kind: str) -> pa.Table:
        """Return the vectors that a head computes from features, as rows of an embeddings table."""
        frozen: Float[Tensor, "n dim"] = torch.from_numpy(matrix(features["feature"]).astype(np.float32))
        unit, norm = unit_and_norm(head(frozen.to(self._tower.device)))
        name = self._tower.name
        found = Vectors({name: unit.numpy()}, {name: norm.numpy()})
        return pa.table({key: features[key], **found.columns(kind, np.arange(len(unit)))})


def _first_of_each(spoken: pa.Table, captions: pa.Table) -> pa.Table:
    """Return the features of each distinct caption once, with its text in the column `caption`."""
    texts = dict(zip(_places(captions), captions["caption"].to_pylist(), strict=True))
    first: dict[str, int] = {}
    for row, key in enumerate(_places(spoken)):
        first.setdefault(texts[key], row)
    rows = spoken.take(pa.array(first.values(), pa.int64()))
    return rows.append_column("caption", pa.array(first, pa.string()))


def _places(captions: pa.Table) -> list[tuple[str, int]]:
    return list(zip(captions["uid"].to_pylist(), captions["ordinal"].to_pylist(), strict=True))
