"""Encoding of stored pictures as latents, one actor call per shard."""

# pyright: reportMissingTypeStubs=false
# pyarrow has no types

import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float

from corgi.clip.pictures import pixel_batches
from corgi.feeding.pack import in_order, sizes_of
from corgi.feeding.packed_rows import LATENTS_TABLE
from corgi.feeding.pictures import kept_pictures, square
from corgi.models.autoencoder import Autoencoder
from corgi.models.device import given_device
from corgi.settings.models import AutoencoderSettings
from corgi.tables.arrow import pc
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import latents
from corgi.tables.store import ShardTask, Store
from corgi.training.autoencoder import AUTOENCODER_FACT, load_autoencoder

ENLARGED_FACT = "enlarged"
"""Fact of a shard of latents: the number of pictures whose stored shorter side is less than the side of the decoded picture."""


class EncodeShards:
    """Ray Data actor: the autoencoder, loaded once, encodes the kept pictures of one shard per call."""

    def __init__(self, root: str, model: str, settings: Mapping[str, object]) -> None:
        """Load the autoencoder whose manifest is at the path `model`; `settings` are those of the autoencoder section."""
        store = Store(root)
        self.model = store.read_shard(model)
        self.settings = AutoencoderSettings.model_validate(settings)
        torch.set_num_threads(max(1, int(self.settings.cpus_per_actor)))
        self.autoencoder = load_autoencoder(store, self.model).to(given_device())

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit a `latents` table with the same rows and row groups as the training table."""
        store = Store(task.root)
        images, selection = (store.read_shard(task.inputs[name][0]) for name in ("download", "curate"))
        kept = kept_pictures(store, images, selection, ["image", "width", "height"])
        kept = kept.take(pa.array(in_order(kept["split"].to_pylist())))
        flat = encoded(self.autoencoder, kept["image"].to_pylist(), self.settings)
        dim = self.autoencoder.latent_dim
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
        columns = {"uid": kept["uid"], "split": kept["split"], "latent": vectors}
        side = self.autoencoder.image_size
        shorter = pc.min_element_wise(kept["width"], kept["height"])
        facts = {
            AUTOENCODER_FACT: self.model.digest,
            ENLARGED_FACT: pc.sum(pc.less(shorter, side)).as_py() or 0,
        }
        with store.attempt(task) as attempt:
            table = pa.table(columns, schema=latents(dim))
            facts |= attempt.write_row_groups(LATENTS_TABLE, table, sizes_of(kept["split"].to_pylist()))
            return attempt.commit(RowCounts(rows_in=kept.num_rows, kept=kept.num_rows), facts=facts)


@torch.no_grad()
def encoded(
    autoencoder: Autoencoder, pictures: list[bytes], settings: AutoencoderSettings
) -> Float[np.ndarray, "rows latent"]:
    """Return the latents of stored pictures as half floats."""
    device = next(autoencoder.buffers()).device
    transform = functools.partial(square, side=autoencoder.image_size)
    parts = [np.zeros((0, autoencoder.latent_dim), np.float16)]
    for (pixels,) in pixel_batches(pictures, [transform], settings.encode_batch, settings.decode_threads):
        latent = autoencoder.encode(pixels.to(device, non_blocking=True))
        parts.append(latent.to(torch.float16).cpu().numpy())
    return np.concatenate(parts)
