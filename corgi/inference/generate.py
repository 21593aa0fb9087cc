"""Captions to pictures with a trained run: caption -> text embedding -> image embedding -> picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.clip.references import model_shard, tower_refs
from corgi.clip.towers import Tower, load_tower
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.text_prior import Sampling, TextPrior
from corgi.settings.clip import EmbedSettings
from corgi.settings.errors import InputError
from corgi.settings.models import DecoderSettings, PriorSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import Store
from corgi.training.decoder import load_decoder
from corgi.training.prior import load_prior

DECODER_SEED_OFFSET = 500_009
"""Keeps the decoder's noise apart from the prior's of the same seed."""


@dataclass(frozen=True)
class Generator:
    """A trained run, loaded: every weight verified against its manifest."""

    towers: tuple[Tower, ...]
    prior: TextPrior
    prior_sampling: Sampling
    decoder: PictureDecoder
    decoder_settings: DecoderSettings

    def generate(self, caption: str, n: int = 1, seed: int = 0) -> list[Image.Image]:
        """Return n pictures of a caption; picture i depends on the caption and seed + i alone."""
        if n < 1:
            raise InputError(f"n={n} asks for no picture; nothing was written; ask for at least one")
        seeds = range(seed, seed + n)
        text = self.text_embedding([caption]).repeat(n, 1)
        embedding = self.prior.sample(text, seeds, self.prior_sampling)
        return self.paint(embedding, seeds)

    def text_embedding(self, captions: list[str]) -> Float[Tensor, "batch dim"]:
        """Return unit text embeddings over all towers."""
        return _joined([tower.texts(captions)[0] for tower in self.towers])

    def image_embedding(self, pictures: list[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Return unit image embeddings over all towers."""
        return _joined([tower.images(pictures)[0] for tower in self.towers])

    def paint(self, embedding: Float[Tensor, "batch dim"], seeds: Sequence[int]) -> list[Image.Image]:
        """Return one picture an image embedding."""
        shifted = [seed + DECODER_SEED_OFFSET for seed in seeds]
        pixels = self.decoder.sample(
            embedding, shifted, self.decoder_settings.sample_steps, self.decoder_settings.guidance
        )
        return [Image.fromarray(np.asarray(picture)) for picture in pixels]


def load(folder: str | Path) -> Generator:
    """Load a run's folder, such as runs/openmoji.

    Raises:
        InputError: the run is not there, or has not finished its prior or decoder.
        StorageError: a committed file does not match its manifest.

    """
    run = Run.open(folder)
    names = (
        "embed",
        "shift",
        "prior",
        "autoencoder",
        "decoder",
        *(("tower",) if "tower" in run.stages() else ()),
    )
    return assemble(run.store, {name: run.shards(name) for name in names})


def assemble(store: Store, shards: Mapping[str, Sequence[ShardManifest]]) -> Generator:
    """Return the generator made of committed shards, by stage."""
    prior, decoder, autoencoder = shards["prior"][0], shards["decoder"][0], shards["autoencoder"][0]
    embed = EmbedSettings.model_validate(shards["embed"][0].settings["embed"])
    own = model_shard(shards["tower"]) if "tower" in shards else None
    settings = PriorSettings.model_validate(prior.settings["prior"])
    return Generator(
        towers=tuple(load_tower(ref) for ref in tower_refs(store, embed, own)),
        prior=load_prior(store, prior, shards["shift"][0], settings.variants[0]),
        prior_sampling=Sampling(
            settings.sample_steps, settings.sampler, settings.guidance, settings.num_candidates
        ),
        decoder=load_decoder(store, decoder, autoencoder),
        decoder_settings=DecoderSettings.model_validate(decoder.settings["decoder"]),
    )


def _joined(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks, dim=1) / len(blocks) ** 0.5
