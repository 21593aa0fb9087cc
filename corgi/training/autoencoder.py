"""A committed autoencoder: writing it, reading it, and checking which autoencoder encoded some latents."""

import json
from collections.abc import Mapping

from safetensors.torch import load_file, save
from torch import nn

from corgi.models.autoencoder import Autoencoder
from corgi.models.latent_spaces import LATENT_SPACES
from corgi.settings.errors import InputError
from corgi.settings.models import AutoencoderSettings
from corgi.tables.attempt import Attempt
from corgi.tables.manifest import ShardManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store

AUTOENCODER_FACT = "autoencoder"
"""Fact of latents and of a decoder: the digest of the autoencoder that encoded the latents; absent before 0.2.0."""
Shard = ShardManifest | ListedShard
_WEIGHTS, _CONFIG = "autoencoder", "config"


def write_autoencoder(attempt: Attempt, autoencoder: nn.Module, config: Mapping[str, object]) -> None:
    """Write an autoencoder's weights and, if it has one, the config from which it is rebuilt."""
    state = {name: value.cpu().contiguous() for name, value in autoencoder.state_dict().items()}
    attempt.write_bytes(_WEIGHTS, ".safetensors", save(state))
    if config:
        attempt.write_bytes(_CONFIG, ".json", (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())


def load_autoencoder(store: Store, model: ShardManifest) -> Autoencoder:
    """Load an autoencoder from its committed weights, on the CPU."""
    settings = AutoencoderSettings.recorded(model.settings["autoencoder"])
    has_config = any(entry.table == _CONFIG for entry in model.files)
    config = json.loads(store.path(model, _CONFIG).read_bytes()) if has_config else {}
    return LATENT_SPACES[settings.kind](config, load_file(store.path(model, _WEIGHTS)))


def check_same_autoencoder(made: Shard, model: Shard) -> None:
    """Check that latents, or a decoder trained on latents, were made with the autoencoder `model`.

    Raises:
        InputError: they were made with another one.

    """
    digest = made.facts.get(AUTOENCODER_FACT, model.digest)
    if digest != model.digest:
        raise InputError(
            f"{made.stage} shard {made.shard} was made with the latents of autoencoder {digest[:12]}, but the present autoencoder is {model.digest[:12]}; "
            f"both are safe; run the same command again to make {made.stage} for this autoencoder"
        )
