"""The CLIP models that a recipe names. This module does not import torch, so that finished work is recognised without it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from corgi.settings.clip import TRAINED, EmbedSettings, TowerRef
from corgi.settings.errors import InputError
from corgi.sources.embeddings import VectorFile, holds_vectors, vector_files
from corgi.tables.manifest import Listing, ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import Store

OWN_TOWER, GIVEN_TOWER = "own", "clip"
_Listing = TypeVar("_Listing", bound=Listing)


def tower_refs(
    store: Store, embed_settings: EmbedSettings, tower_manifest: Listing | None
) -> tuple[TowerRef, ...]:
    """Return the recipe's towers; if it names none, the trained one (name "own") whose files the tower stage committed.

    Paths of local files are made absolute, since a Ray worker has a different working folder.
    """
    named = embed_settings.towers or (TowerRef(name=OWN_TOWER, model=OWN_TOWER, pretrained=TRAINED),)
    return tuple(
        _trained(store, ref, tower_manifest) if ref.pretrained == TRAINED else _absolute(ref) for ref in named
    )


def _trained(store: Store, ref: TowerRef, manifest: Listing | None) -> TowerRef:
    if manifest is None:
        raise InputError(
            f"tower {ref.name} is the one that the tower stage trains, but there is no tower stage; nothing was embedded; "
            "add a tower section or name a pretrained model"
        )
    config, checkpoint = (str(store.path(manifest, table)) for table in ("config", "checkpoint"))
    return TowerRef(name=ref.name, model=OWN_TOWER, pretrained=checkpoint, config=config)


def model_shard(manifests: Iterable[_Listing]) -> _Listing | None:
    """Return the tower stage's shard that contains the model; its other shards contain frozen features."""
    return next((m for m in manifests if any(entry.table == "checkpoint" for entry in m.files)), None)


def given_files(settings: EmbedSettings) -> list[VectorFile]:
    """Return the files of vectors in embed.input; files of clip-retrieval, which name no tower, get the recipe's tower if it has only one, else "clip".

    Raises:
        InputError: an input contains no vectors.

    """
    wrong = [folder for folder in settings.input if not holds_vectors(folder)]
    if wrong:
        raise InputError(
            f"embed.input: {wrong[0]} contains no vectors, but other inputs do; nothing was started; use separate runs for pictures and for vectors"
        )
    tower = settings.towers[0].name if len(settings.towers) == 1 else GIVEN_TOWER
    return [file for folder in settings.input for file in vector_files(Path(folder).absolute(), tower)]


def shift_of(folder: str) -> tuple[Store, ShardManifest]:
    """Return the store and the shard of shift statistics of the run in a folder."""
    run = Run.open(folder)
    return run.store, run.shards("shift")[0]


def _absolute(ref: TowerRef) -> TowerRef:
    paths = {}
    for field in ("pretrained", "config"):
        value = getattr(ref, field)
        if value is not None and Path(value).is_file():
            paths[field] = str(Path(value).absolute())
    return ref.model_copy(update=paths)


def absolute(settings: EmbedSettings) -> EmbedSettings:
    """Return the settings with the files of heads and the folders of text encoders as absolute paths."""
    heads = tuple(ref.model_copy(update={"file": str(Path(ref.file).absolute())}) for ref in settings.heads)
    tokens = tuple(
        ref.model_copy(update={"model": str(Path(ref.model).absolute())}) if Path(ref.model).exists() else ref
        for ref in settings.tokens
    )
    return settings.model_copy(update={"heads": heads, "tokens": tokens})
