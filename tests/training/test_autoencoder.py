"""A committed autoencoder comes back as it was written, whatever its latent space."""

from pathlib import Path
from typing import Any

import pytest
import torch

from corgi.models.autoencoder import Autoencoder, fit_linear
from corgi.models.latent_spaces import CODECS
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.names import LatentSpaceName
from corgi.tables.manifest import RowCounts
from corgi.tables.store import ShardTask, Store
from corgi.training.autoencoder import load_autoencoder, write_autoencoder

CONFIGS: dict[LatentSpaceName, dict[str, Any]] = {
    "kl": {"widths": [8, 16], "blocks": 1, "channels": 3, "levels": []},
    "vq": {"widths": [8, 16], "blocks": 1, "channels": 3, "levels": [4, 3]},
    "pixels": {},
}


def made(kind: LatentSpaceName) -> tuple[Autoencoder, dict[str, Any]]:
    """Return an autoencoder of a kind with the config that is stored beside it."""
    torch.manual_seed(0)
    pictures = torch.rand(20, 3, 8, 8)
    if kind == "linear":
        return fit_linear(pictures, 5, seed=0), {}
    autoencoder = SpatialAutoencoder(CODECS[kind](CONFIGS[kind]), 8)
    autoencoder.measure([pictures])
    return autoencoder, {"image_size": 8, "codec": CONFIGS[kind]}


@pytest.mark.parametrize("kind", ["linear", *CONFIGS])
@torch.no_grad()
def test_what_is_written_is_what_is_read(tmp_path: Path, kind: LatentSpaceName) -> None:
    autoencoder, config = made(kind)
    store = Store(tmp_path)
    task = ShardTask(str(tmp_path), "autoencoder", "model", "0" * 32, 1, "", {"autoencoder": {"kind": kind}})
    with store.attempt(task) as attempt:
        write_autoencoder(attempt, autoencoder, config)
        model = attempt.commit(RowCounts(rows_in=0, kept=0))
    loaded = load_autoencoder(store, model)
    pictures = torch.rand(3, 3, 8, 8)
    assert loaded.latent_shape == autoencoder.latent_shape
    torch.testing.assert_close(loaded.encode(pictures), autoencoder.encode(pictures))
    latents = torch.randn(3, loaded.latent_dim)
    torch.testing.assert_close(loaded.decode(latents), autoencoder.decode(latents))
