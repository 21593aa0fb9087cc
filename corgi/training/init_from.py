"""Trained weights that a prior or decoder starts from: another run's, or a diffusers U-Net. Does not import torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from corgi.names import UNetConfig
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.storage.files import sha256_of_file
from corgi.storage.roots import is_object_store
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import Store

UNET_CONFIG = "unet"
"""Table of a decoder's shard: config.json of the diffusers U-Net that it started from, if it started from one."""
INIT_FACT = "init_from"
"""Fact of a prior or decoder: what it started from, as run, manifest and digest, or as folder and hashes of the U-Net."""
_SAFE = "nothing was trained"


@dataclass(frozen=True)
class InitFolder:
    """A folder written by a diffusers model's save_pretrained."""

    path: Path

    @property
    def files(self) -> dict[str, str]:
        """Return the sha256 of the config and weight files by file name."""
        paths = [self.path / "config.json", *sorted(self.path.glob("*.safetensors"))]
        return {path.name: sha256_of_file(path) for path in paths if path.is_file()}

    @property
    def config(self) -> UNetConfig:
        """Return the content of config.json.

        Raises:
            InputError: it cannot be read.

        """
        try:
            read = json.loads((self.path / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                f"decoder.init_from={self.path}: config.json cannot be read: {' '.join(str(error).split())}; {_SAFE}; name a folder of save_pretrained"
            ) from error
        return cast("UNetConfig", read) if isinstance(read, dict) else {}

    def facts(self) -> dict[str, object]:
        """Return what the decoder's manifest records about it."""
        return {"folder": str(self.path), "files": self.files}


@dataclass(frozen=True)
class InitRun:
    """The prior or decoder of another run."""

    run: Run
    made: ShardManifest

    @property
    def config(self) -> UNetConfig | None:
        """Return the config of the diffusers U-Net if that decoder is one, else None."""
        return unet_config(self.run.store, self.made)

    def facts(self) -> dict[str, object]:
        """Return what the decoder's manifest records about it."""
        return {"run": self.run.name, "manifest": self.made.path, "digest": self.made.digest}


Init = InitFolder | InitRun


def decoder_init(recipe: Recipe) -> Init | None:
    """Return what `decoder.init_from` names; None if it is empty.

    Raises:
        InputError: there is neither such a folder nor such a run, or the run has no decoder yet.

    """
    named = recipe.decoder.init_from
    if named and (Path(named) / "config.json").is_file():
        return InitFolder(Path(named).absolute())
    return _run_of(named, recipe.root, "decoder")


def prior_init(recipe: Recipe) -> InitRun | None:
    """Return the prior that `prior.init_from` names; None if it is empty.

    Raises:
        InputError: there is no such run, or it has no prior yet.

    """
    return _run_of(recipe.prior.init_from, recipe.root, "prior")


def fingerprint(init: Init | None) -> dict[str, str] | None:
    """Return what the settings do not record about the weights that a training starts from: their hashes."""
    if init is None:
        return None
    if isinstance(init, InitFolder):
        return init.files
    return {f"run {init.run.name}, {init.made.path}": init.made.digest}


def place_of(init: Init | None) -> dict[str, str]:
    """Return where workers find the weights; empty for a training that starts from random weights."""
    if init is None:
        return {}
    if isinstance(init, InitFolder):
        return {"folder": str(init.path)}
    return {"root": init.run.store.location, "made": init.made.path}


def facts_of(init: Init | None) -> dict[str, object]:
    """Return what a manifest records about the weights that its training started from."""
    return {} if init is None else {INIT_FACT: init.facts()}


def unet_config(store: Store, decoder: ShardManifest) -> UNetConfig | None:
    """Return the config of the diffusers U-Net that a committed decoder started from; None for one of corgi's own networks."""
    if not any(entry.table == UNET_CONFIG for entry in decoder.files):
        return None
    return json.loads(store.path(decoder, UNET_CONFIG).read_bytes())


def _run_of(named: str, root: str, stage: str) -> InitRun | None:
    if not named:
        return None
    folder = named.removesuffix(f"/{stage}").rstrip("/")
    for location in (folder, f"{root.rstrip('/')}/{folder}"):
        if is_object_store(location) or (Path(location) / "run.json").is_file():
            run = Run.open(location)
            return InitRun(run, run.shards(stage)[0])
    what = "the folder of a run" if stage == "prior" else "a folder with config.json, nor that of a run"
    raise InputError(
        f"{stage}.init_from={named} is not {what}, here or under {root}; {_SAFE}; name a run's folder, RUN or RUN/{stage}"
    )
