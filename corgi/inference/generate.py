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
from corgi.clip.tokens import TokenEncoder, token_encoder
from corgi.clip.towers import Tower, load_tower
from corgi.inference.prompts import NEIGHBOURS, check_prompts
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.text_prior import Sampling, TextPrior
from corgi.settings.clip import EmbedSettings, TokenRef
from corgi.settings.decoder import DecoderSettings
from corgi.settings.models import PriorSettings
from corgi.settings.section import digest
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import Store
from corgi.training.decoder import load_decoder
from corgi.training.prior import load_prior
from corgi.training.words import cut_or_pad, words_of

DECODER_SEED_OFFSET = 500_009
"""Keeps the decoder's noise apart from the prior's of the same seed."""


@dataclass(frozen=True)
class Words:
    """A text encoder as the embed stage used it, with its states cut or padded to what the prior reads."""

    encoder: TokenEncoder
    ref: TokenRef
    number: int

    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch words width"]:
        """Return token states rounded to half floats, as they are stored; zero after a caption's end."""
        states, lengths = self.encoder.text_states(captions)
        states = states[:, : self.ref.max_tokens].half().float()
        beyond = torch.arange(states.shape[1]) >= lengths[:, None]
        return cut_or_pad(states.masked_fill(beyond[..., None], 0.0)[:, None], self.number)[:, 0]


@dataclass(frozen=True)
class Generator:
    """A trained run, loaded: every weight verified against its manifest."""

    towers: tuple[Tower, ...]
    prior: TextPrior
    prior_sampling: Sampling
    decoder: PictureDecoder
    decoder_settings: DecoderSettings
    words: Words | None = None
    """Encoder of the words the prior reads; None for a prior without words."""
    models: str = ""
    """Digest of the prior, decoder and autoencoder: what they learned, and from what."""

    def generate(self, caption: str, n: int = 1, seed: int = 0) -> list[Image.Image]:
        """Return n pictures of a caption; picture i depends on the caption and seed + i alone.

        Words beyond what the text encoders read are cut off.

        Raises:
            InputError: the caption has no words, n is less than one, or a seed is outside 0..2^63-1.

        """
        check_prompts([caption], n, seed)
        seeds = range(seed, seed + n)
        text = self.text_embedding([caption]).repeat(n, 1)
        words = self.word_encodings([caption])
        embedding = self.prior.sample(
            text, seeds, self.prior_sampling, None if words is None else words.repeat(n, 1, 1)
        )
        return self.paint(embedding, seeds)

    def text_embedding(self, captions: list[str]) -> Float[Tensor, "batch dim"]:
        """Return unit text embeddings over all towers."""
        return _joined([tower.texts(captions)[0] for tower in self.towers])

    def word_encodings(self, captions: Sequence[str]) -> Float[Tensor, "batch words width"] | None:
        """Return the word encodings the prior was trained to read; None for a prior without words."""
        return None if self.words is None else self.words.encode(captions)

    def image_embedding(self, pictures: list[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Return unit image embeddings over all towers."""
        return _joined([tower.images(pictures)[0] for tower in self.towers])

    def paint(self, embedding: Float[Tensor, "batch dim"], seeds: Sequence[int]) -> list[Image.Image]:
        """Return one picture per image embedding; its `info` names the train pictures that the decoder looked at, if any."""
        shifted = [seed + DECODER_SEED_OFFSET for seed in seeds]
        pixels = self.decoder.sample(
            embedding, shifted, self.decoder_settings.sample_steps, self.decoder_settings.guidance
        )
        pictures = [Image.fromarray(np.asarray(picture)) for picture in pixels.cpu()]
        for picture, uids in zip(pictures, self.decoder.neighbours_of(embedding), strict=True):
            if uids:
                picture.info[NEIGHBOURS] = " ".join(uids)
        return pictures


def load(folder: str | Path) -> Generator:
    """Load a run's folder, such as runs/openmoji.

    Raises:
        InputError: the run does not exist, or has not finished its prior or decoder.
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
    embed = EmbedSettings.recorded(shards["embed"][0].settings["embed"])
    own = model_shard(shards["tower"]) if "tower" in shards else None
    settings = PriorSettings.recorded(prior.settings["prior"])
    towers = tuple(load_tower(ref) for ref in tower_refs(store, embed, own))
    encoder = words_of(shards["embed"][0], settings)
    ref = next((ref for ref in embed.tokens if ref.name == encoder), None)
    return Generator(
        towers=towers,
        words=None if ref is None else Words(token_encoder(ref, towers), ref, settings.num_text_tokens),
        prior=load_prior(store, prior, shards["shift"][0], settings.variants[0]),
        prior_sampling=Sampling(
            settings.sample_steps, settings.sampler, settings.guidance, settings.num_candidates
        ),
        decoder=load_decoder(store, decoder, autoencoder),
        decoder_settings=DecoderSettings.recorded(decoder.settings["decoder"]),
        models=digest([prior.digest, decoder.digest, autoencoder.digest]),
    )


def _joined(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks, dim=1) / len(blocks) ** 0.5
