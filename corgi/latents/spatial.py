"""The spatial spaces: a codec that was trained, loaded or needs neither, standardised per channel and committed."""

import dataclasses
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from corgi.feeding.feed import first_rows
from corgi.feeding.pictures import PictureRows, PictureSet
from corgi.latents.objective import MAX_VAL_PICTURES, SHOWN_PICTURES, conv_config, pairs, psnr, unit_range
from corgi.latents.pretrained import read_pretrained
from corgi.models.adversary import codec_state
from corgi.models.conv_codec import ConvCodec
from corgi.models.device import given_device
from corgi.models.spatial_autoencoder import Codec, PixelCodec, SpatialAutoencoder
from corgi.settings.models import AutoencoderSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from corgi.training.autoencoder import write_autoencoder

MOMENT_PICTURES = 2048
"""Largest number of train pictures over which mean and scale of each channel are measured, over all positions of their latents."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The results of a training: files on a disk that every node can read, and the measures at its end."""

    weights: str
    metrics: str
    facts: Mapping[str, object]


class SpatialModel:
    """Ray Data actor that makes the shard `model`."""

    def __init__(
        self, stages: Mapping[str, str], settings: Mapping[str, object], trained: Trained | None
    ) -> None:
        """Take the paths of the manifests of `download` and `curate`, the autoencoder section as JSON, and the results of a training or None."""
        self.stages = stages
        self.settings = AutoencoderSettings.model_validate(settings)
        self.trained = trained
        torch.set_num_threads(max(1, int(self.settings.cpus_per_actor)))

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `autoencoder`, `config`, `reconstructions` if there are val pictures, and `metrics` if there was a training.

        Raises:
            InputError: a pretrained autoencoder cannot be used.

        """
        store, device = Store(task.root), given_device()
        codec, config = self._codec()
        autoencoder = SpatialAutoencoder(codec, self.settings.image_size).to(device).eval()
        pictures, side = PictureSet.open(task.root, self.stages), self.settings.image_size
        rows = {split: PictureRows(pictures, split, side) for split in (Split.TRAIN, Split.VAL)}
        if self.settings.kind != "pretrained" or self.settings.pretrained.standardise:
            autoencoder.measure(self._batches(rows[Split.TRAIN], MOMENT_PICTURES, device))
        num_rows = sum(rows[Split.TRAIN].counts)
        facts = self._facts(autoencoder, num_rows)
        grid = None
        quality: list[Tensor] = []
        for shown in self._batches(rows[Split.VAL], MAX_VAL_PICTURES, device):
            made = round_trip(autoencoder, shown)
            quality.append(psnr(made, shown))
            if grid is None:
                grid = pairs(shown[:SHOWN_PICTURES], made[:SHOWN_PICTURES])
        if quality:
            facts["val"] = facts.get("val") or {"psnr": round(float(torch.cat(quality).mean()), 3)}
        with store.attempt(task) as attempt:
            write_autoencoder(attempt, autoencoder, {"image_size": autoencoder.image_size, "codec": config})
            if grid is not None:
                attempt.write_bytes("reconstructions", ".png", _png(grid))
            if self.trained is not None:
                attempt.write_bytes("metrics", ".jsonl", Path(self.trained.metrics).read_bytes())
            return attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows), facts=facts)

    def _codec(self) -> tuple[Codec, Mapping[str, object]]:
        """Return the codec with its weights, and the config from which it can be rebuilt without them."""
        if self.settings.kind == "pixels":
            return PixelCodec(), {}
        if self.settings.kind == "pretrained":
            return read_pretrained(self.settings.pretrained, self.settings.image_size)
        assert self.trained is not None
        config = conv_config(self.settings)
        codec = ConvCodec(config)
        codec.load_state_dict(codec_state(load_file(self.trained.weights)))
        values = dataclasses.asdict(config)
        return codec.requires_grad_(False), {
            name: values[name] for name in values if name != "num_codes" or values[name]
        }

    def _facts(self, autoencoder: SpatialAutoencoder, num_train: int) -> dict[str, object]:
        return {
            "kind": self.settings.kind,
            "train_pictures": num_train,
            "latent_dim": autoencoder.latent_dim,
            "latent_shape": list(autoencoder.latent_shape),
            "parameters": sum(value.numel() for value in autoencoder.parameters()),
            "latent_mean": _rounded(autoencoder.mean),
            "latent_scale": _rounded(autoencoder.scale),
            **({} if self.trained is None else self.trained.facts),
        }

    def _batches(self, rows: PictureRows, limit: int, device: torch.device) -> Iterator[Tensor]:
        loaded = first_rows(rows, limit).get("picture", ())
        for first in range(0, min(limit, len(loaded)), self.settings.encode_batch):
            part = torch.from_numpy(loaded[first : min(first + self.settings.encode_batch, limit)])
            yield unit_range(part.to(device))


@torch.no_grad()
def round_trip(autoencoder: SpatialAutoencoder, pictures: Tensor) -> Tensor:
    """Return the reconstructions of pictures."""
    return autoencoder.decode(autoencoder.encode(pictures))


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
