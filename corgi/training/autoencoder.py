"""The autoencoder stage: fits the decoder's space on train pictures and writes every kept picture's latent."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from corgi.flow import screen
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.imaging.decode import decode_stored
from corgi.models.autoencoder import LATENT_SPACES, Autoencoder
from corgi.settings.errors import InputError
from corgi.settings.models import AutoencoderSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split, latents
from corgi.tables.store import ShardTask, Store
from corgi.training.data_checks import check_pictures_differ

ENCODE_BATCH = 512
AUTOENCODER_FACT = "autoencoder"
"""Fact of latents and of a decoder: the digest of the autoencoder whose latents they are; absent before 0.2.0."""


def run(context: Context) -> list[ShardTask]:
    """Commit the shard `model` (autoencoder.safetensors), then one `latents` table per shard."""
    model = context.task("model")
    if context.pending([model]):
        _fit(context, model)
    fitted = context.store.shard(model.stage, model.key)
    assert fitted is not None
    selections = {manifest.shard: manifest for manifest in context.shards("curate")}
    tasks = [
        context.task(
            images.shard,
            {"model": fitted.digest, "path": fitted.path},
            {"download": [images], "curate": [selections[images.shard]]},
        )
        for images in context.shards("download")
    ]
    make_pending(context, EncodeShards, tasks, Pool(), "latents")
    return [model, *tasks]


class EncodeShards:
    """Encode one shard's kept pictures."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit a `latents` table, sorted by uid."""
        torch.set_num_threads(1)
        store = Store(task.root)
        model = store.read_shard(task.payload["path"])
        autoencoder = load_autoencoder(store, model)
        kept = _kept(store, task.inputs["download"][0], task.inputs["curate"][0])
        encoded = [
            autoencoder.encode(
                square_pictures(kept["image"].slice(first, ENCODE_BATCH), autoencoder.image_size)
            )
            for first in range(0, kept.num_rows, ENCODE_BATCH)
        ]
        flat = (
            torch.cat(encoded).to(torch.float16).numpy()
            if encoded
            else np.zeros((0, autoencoder.latent_dim), np.float16)
        )
        schema = latents(autoencoder.latent_dim)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), autoencoder.latent_dim)
        table = pa.table({"uid": kept["uid"], "split": kept["split"], "latent": vectors}, schema=schema)
        with store.attempt(task) as attempt:
            attempt.write_table("latents", table)
            counts = RowCounts(rows_in=table.num_rows, kept=table.num_rows)
            return attempt.commit(counts, facts={AUTOENCODER_FACT: model.digest})


def load_autoencoder(store: Store, model: ShardManifest) -> Autoencoder:
    """Return the fitted autoencoder from its committed weights."""
    settings = AutoencoderSettings.recorded(model.settings["autoencoder"])
    return LATENT_SPACES[settings.kind].autoencoder(**load_file(store.path(model, "autoencoder")))


def check_same_autoencoder(made: ShardManifest, model: ShardManifest) -> None:
    """Compare the autoencoder that latents, or a decoder trained on latents, were made with to another.

    Raises:
        InputError: they differ.

    """
    digest = made.facts.get(AUTOENCODER_FACT, model.digest)
    if digest != model.digest:
        raise InputError(
            f"{made.stage} shard {made.shard} was made with the latents of autoencoder {digest[:12]}, and this one is {model.digest[:12]}; "
            f"both are safe; run the same command again to make {made.stage} for this autoencoder"
        )


def square_pictures(encoded: pa.ChunkedArray, side: int) -> Float[Tensor, "batch 3 side side"]:
    """Decode stored pictures to 0..1: shorter side to `side`, centre crop, bicubic with antialiasing as CLIP does."""
    return torch.stack([square(decode_stored(data), side) for data in encoded.to_pylist()])


def square(picture: Image.Image, side: int) -> Float[Tensor, "3 side side"]:
    """Resize a picture's shorter side to `side` and crop its centre; values 0..1."""
    ratio = side / min(picture.size)
    width, height = (max(side, round(length * ratio)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC).crop(
        (left, top, left + side, top + side)
    )
    return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255).permute(2, 0, 1)


def _fit(context: Context, task: ShardTask) -> None:
    settings: AutoencoderSettings = context.recipe.autoencoder
    pictures = torch.cat(list(_train_pictures(context, settings)))
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = torch.randperm(len(pictures), generator=generator)[: settings.max_fit_rows].sort().values
    space = LATENT_SPACES[settings.kind]
    autoencoder = space.fit(pictures[chosen], settings.latent_dim, settings.seed)
    explained = _explained(autoencoder, pictures[chosen[:ENCODE_BATCH]])
    with context.store.attempt(task) as attempt:
        state: dict[str, Any] = {name: value.contiguous() for name, value in autoencoder.state_dict().items()}
        attempt.write_bytes("autoencoder", ".safetensors", save(state))
        facts = {
            "kind": settings.kind,
            "train_pictures": len(chosen),
            "latent_dim": autoencoder.latent_dim,
            "latent_shape": list(autoencoder.latent_shape),
            "train_variance_kept": explained,
        }
        attempt.commit(RowCounts(rows_in=len(chosen), kept=len(chosen)), facts=facts)


def _train_pictures(context: Context, settings: AutoencoderSettings) -> list[Tensor]:
    loaded = []
    pairs = list(zip(context.shards("download"), context.shards("curate"), strict=True))
    with screen.bar("autoencoder fit", len(pairs), "shard") as bar:
        for num_read, (images, selection) in enumerate(pairs, 1):
            kept = _kept(context.store, images.path, selection.path)
            train = kept.filter(pc.field("split") == Split.TRAIN.value)
            if train.num_rows:
                loaded.append(square_pictures(train["image"], settings.image_size))
            if sum(map(len, loaded)) >= settings.max_fit_rows:
                break
            bar.reach(num_read)
    check_pictures_differ(loaded)
    return loaded


def _kept(store: Store, images: str, selection: str) -> pa.Table:
    chosen = store.read(store.read_shard(selection), "selection", ["uid", "keep"])
    table = store.read(store.read_shard(images), "images", ["uid", "split", "image"])
    return table.filter(pc.field("uid").isin(chosen.filter(chosen["keep"])["uid"].combine_chunks()))


def _explained(autoencoder: Autoencoder, pictures: Tensor) -> float:
    """Return the share of the pictures' variance that a round trip keeps."""
    error = (autoencoder.decode(autoencoder.encode(pictures)) - pictures).square().mean()
    return round(float(1 - error / (pictures - pictures.mean(0)).square().mean()), 4)
