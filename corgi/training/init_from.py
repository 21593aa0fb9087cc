"""Trained weights that a prior or decoder starts from: another run's, or a U-Net of diffusers. Light: no torch is imported."""

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
"""Table of a decoder's shard: config.json of the U-Net of diffusers that it started from, where it did."""
INIT_FACT = "init_from"
"""Fact of a prior or decoder: the run, manifest and digest, or the folder and hashes of the U-Net, it started from."""
_SAFE = "nothing was trained"


@dataclass(frozen=True)
class InitFolder:
    """A folder that save_pretrained of a diffusers model wrote."""

    path: Path

    @property
    def files(self) -> dict[str, str]:
        """Return the sha256 of config and weights by name."""
        found = [self.path / "config.json", *sorted(self.path.glob("*.safetensors"))]
        return {path.name: sha256_of_file(path) for path in found if path.is_file()}

    @property
    def config(self) -> UNetConfig:
        """Return what config.json holds.

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
        """Return what the decoder's manifest says of it."""
        return {"folder": str(self.path), "files": self.files}


@dataclass(frozen=True)
class InitRun:
    """The prior or decoder of another run."""

    run: Run
    made: ShardManifest

    @property
    def config(self) -> UNetConfig | None:
        """Return the config of the U-Net of diffusers that the decoder was itself, if it was one."""
        return unet_config(self.run.store, self.made)

    def facts(self) -> dict[str, object]:
        """Return what the decoder's manifest says of it."""
        return {"run": self.run.name, "manifest": self.made.path, "digest": self.made.digest}


Init = InitFolder | InitRun


def decoder_init(recipe: Recipe) -> Init | None:
    """Return what `decoder.init_from` names; None where it is empty.

    Raises:
        InputError: there is neither such a folder nor such a run, or the run has no decoder yet.

    """
    named = recipe.decoder.init_from
    if named and (Path(named) / "config.json").is_file():
        return InitFolder(Path(named).absolute())
    return _run_of(named, recipe.root, "decoder")


def prior_init(recipe: Recipe) -> InitRun | None:
    """Return the prior that `prior.init_from` names; None where it is empty.

    Raises:
        InputError: there is no such run, or it has no prior yet.

    """
    return _run_of(recipe.prior.init_from, recipe.root, "prior")


def fingerprint(found: Init | None) -> dict[str, str] | None:
    """Return what settings cannot tell of the weights that a training starts from: their hashes."""
    if found is None:
        return None
    if isinstance(found, InitFolder):
        return found.files
    return {f"run {found.run.name}, {found.made.path}": found.made.digest}


def place_of(found: Init | None) -> dict[str, str]:
    """Return where workers find the weights; empty for a training that starts at random."""
    if found is None:
        return {}
    if isinstance(found, InitFolder):
        return {"folder": str(found.path)}
    return {"root": found.run.store.location, "made": found.made.path}


def facts_of(found: Init | None) -> dict[str, object]:
    """Return what a manifest says of the weights that its training started from."""
    return {} if found is None else {INIT_FACT: found.facts()}


def unet_config(store: Store, decoder: ShardManifest) -> UNetConfig | None:
    """Return the config of the U-Net of diffusers that a committed decoder is; None for a network of our own."""
    if not any(entry.table == UNET_CONFIG for entry in decoder.files):
        return None
    return json.loads(store.path(decoder, UNET_CONFIG).read_bytes())


def _run_of(named: str, root: str, stage: str) -> InitRun | None:
    if not named:
        return None
    folder = named.removesuffix(f"/{stage}").rstrip("/")
    for place in (folder, f"{root.rstrip('/')}/{folder}"):
        if is_object_store(place) or (Path(place) / "run.json").is_file():
            run = Run.open(place)
            return InitRun(run, run.shards(stage)[0])
    what = "the folder of a run" if stage == "prior" else "a folder with config.json, nor that of a run"
    raise InputError(
        f"{stage}.init_from={named} is not {what}, here or under {root}; {_SAFE}; name a run's folder, RUN or RUN/{stage}"
    )
