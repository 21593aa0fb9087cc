"""Paints captions with a trained run: caption -> text embedding -> image embedding -> picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.clip.towers import Tower
from corgi.diffusion.sphere import mixed, slerp
from corgi.inference.prompts import (
    DATA,
    MODELS,
    NEIGHBOURS,
    PROMPT,
    RUN,
    SEED,
    SETTINGS,
    SIMILARITY,
    check_prompts,
    check_seeds,
)
from corgi.inference.words import Words
from corgi.models.embedder import Embedder, Sampling
from corgi.models.picture_decoder import DECODER_SEED_OFFSET, PictureDecoder, Watch, to_bytes
from corgi.models.text_prior import TextPrior
from corgi.models.upsampler import Upsampler, Watching, upsampled
from corgi.names import EmbedderName
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.painting import PaintSettings

BEST_OF_STRIDE = 2_000_000_011
"""Distance between the seeds of the pictures from which one is chosen: no seed equals one of the prior's candidates."""
Part = str | Image.Image
"""A part of a mixture: a caption or a picture."""


@dataclass(frozen=True)
class Origin:
    """Where a generator's models come from."""

    run: str = ""
    data: str = ""
    """Digest of the tables on which the models were trained."""


@dataclass(frozen=True)
class Generator:
    """A loaded run, with every weight file verified against its manifest. Generators made from it share its networks."""

    towers: tuple[Tower, ...]
    prior: Embedder
    prior_sampling: Sampling
    decoder: PictureDecoder
    decoder_settings: DecoderSettings
    words: Words | None = None
    """Encoder of the token states that the prior reads; None for a prior that reads none."""
    decoder_words: Words | None = None
    """Encoder of the token states that the decoder reads; None for a decoder that reads none."""
    upsamplers: tuple[Upsampler, ...] = ()
    """The steps of the cascade, in order; empty for a run without a cascade."""
    models: str = ""
    """Digest of prior, decoder, autoencoder and cascade: of their weights and of their inputs."""
    origin: Origin = field(default_factory=Origin)
    best_of: int = 1
    """Number of pictures painted for each one returned; the closest to the caption is kept."""
    embedder: EmbedderName = "prior"
    """What `prior` is: the run's own prior, or a baseline that replaces it."""

    def using(self, asked: PaintSettings) -> "Generator":
        """Return a generator with other settings and the same networks: nothing is loaded or built.

        Raises:
            SettingsError: more steps are requested than the models have timesteps.

        """
        _check_steps("steps", asked.steps, self.decoder.process.schedule.num_steps)
        if isinstance(self.prior, TextPrior):
            _check_steps("prior_steps", asked.prior_steps, self.prior.process.schedule.num_steps)
        decoder = {"sampler": asked.sampler, "guidance_interval": asked.guidance_interval}
        prior = {
            "steps": asked.prior_steps,
            "sampler": asked.prior_sampler,
            "guidance": asked.prior_guidance,
            "num_candidates": asked.prior_candidates,
        }
        settings = {"sample_steps": asked.steps, "guidance": asked.guidance, **decoder}
        return replace(
            self,
            prior_sampling=replace(self.prior_sampling, **_given(prior)),
            decoder=replace(self.decoder, **_given(decoder)),
            decoder_settings=self.decoder_settings.model_copy(update=_given(settings)),
            best_of=asked.best_of,
        )

    @property
    def side(self) -> int:
        """Return the side of the painted pictures, px."""
        last = self.upsamplers[-1].painter if self.upsamplers else self.decoder
        return last.autoencoder.image_size

    @property
    def manner(self) -> dict[str, object]:
        """Return how this generator paints: steps, samplers, guidance and candidates, as JSON."""
        prior = self.prior_sampling
        baseline = {} if self.embedder == "prior" else {"embedder": self.embedder}
        cascade = {"upsamplers": [step.manner for step in self.upsamplers]} if self.upsamplers else {}
        return {
            **baseline,
            **cascade,
            "prior_steps": prior.steps,
            "prior_sampler": prior.sampler,
            "prior_guidance": prior.guidance,
            "prior_candidates": prior.num_candidates,
            "steps": self.decoder_settings.sample_steps,
            "guidance": self.decoder_settings.guidance,
            **self.decoder.manner,
            "best_of": self.best_of,
        }

    def generate(self, caption: str, n: int = 1, seed: int = 0) -> list[Image.Image]:
        """Return n pictures of a caption; picture i depends only on the caption and seed + i.

        A caption is truncated to the length that the text encoders read. Each picture's `info` records what it was made from.

        Raises:
            InputError: the caption cannot be painted, n is less than one, or a seed is outside 0..2^63-1.

        """
        check_prompts([caption], n, seed)
        return self.generate_each([caption] * n, range(seed, seed + n))

    def generate_each(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Return one picture per caption and seed; the batch changes no byte of it by more than 1 of 255 on CPUs.

        Raises:
            InputError: a caption cannot be painted, or a seed is outside 0..2^63-1.

        """
        if not captions:
            return []
        check_prompts(captions, 1, min(seeds))
        check_seeds(1, max(seeds))
        distinct, text, words = self._read(captions)
        index = [distinct[caption] for caption in captions]
        text, words = text[index], None if words is None else words[index]
        rounds = [
            self._once(captions, text, words, [seed + BEST_OF_STRIDE * number for seed in seeds])
            for number in range(self.best_of)
        ]
        pictures = rounds[0] if self.best_of == 1 else self._closest(rounds, text)
        for picture, caption, seed in zip(pictures, captions, seeds, strict=True):
            picture.info |= {PROMPT: caption, SEED: str(seed)}
        return pictures

    def embeddings(self, captions: Sequence[str], seeds: Sequence[int]) -> Float[Tensor, "batch dim"]:
        """Return the prior's unit image embedding of each caption and seed."""
        distinct, text, words = self._read(captions)
        index = [distinct[caption] for caption in captions]
        words = None if words is None else words[index]
        return self.prior.sample(text[index], seeds, self.prior_sampling, words)

    @torch.no_grad()
    def steps(self, caption: str, seed: int = 0) -> list[Image.Image]:
        """Return the picture predicted after each step of decoder and cascade, all resized to the final side; the last one is the result.

        Raises:
            InputError: the caption cannot be painted, or the seed is outside 0..2^63-1.

        """
        check_prompts([caption], 1, seed)
        frames: list[Tensor] = []

        def watching(painter: PictureDecoder) -> Watch:
            return lambda latents: frames.append(to_bytes(painter.autoencoder.decode(latents))[0].cpu())

        self._pixels(self.embeddings([caption], [seed]), [seed], [caption], watching)
        size = (self.side, self.side)
        pictures = [
            Image.fromarray(np.asarray(pixels)).resize(size, Image.Resampling.BICUBIC) for pixels in frames
        ]
        for picture in pictures:
            picture.info |= {**self._told, PROMPT: caption, SEED: str(seed)}
        return pictures

    def variations(self, picture: Image.Image, n: int = 1, seed: int = 0) -> list[Image.Image]:
        """Return n pictures painted from the image embedding of a given picture; picture i depends only on it and seed + i.

        Raises:
            InputError: n is less than one, or a seed is outside 0..2^63-1.

        """
        check_seeds(n, seed)
        return self.paint(self.embedding_of(picture, seed)[None].repeat(n, 1), range(seed, seed + n))

    def mix(
        self, parts: Sequence[Part], weights: Sequence[float] | None = None, n: int = 1, seed: int = 0
    ) -> list[Image.Image]:
        """Return n pictures of captions and pictures mixed on the sphere of image embeddings; the weights are equal if none are given.

        Raises:
            InputError: there are fewer than two parts, a caption cannot be painted, the weights are not valid, or a seed is outside
                0..2^63-1.

        """
        check_seeds(n, seed)
        if len(parts) < 2:
            raise InputError(
                f"{len(parts)} captions and pictures cannot be mixed; nothing was painted; name two or more"
            )
        given = [1.0] * len(parts) if weights is None else list(weights)
        embeddings = torch.stack([self.embedding_of(part, seed) for part in parts])
        try:
            mixture = mixed(embeddings, given)
        except ValueError as error:
            raise InputError(f"{error}; nothing was painted; choose other weights or parts") from error
        return self.paint(mixture[None].repeat(n, 1), range(seed, seed + n))

    def interpolate(self, first: Part, last: Part, frames: int = 8, seed: int = 0) -> list[Image.Image]:
        """Return pictures at equal angles from one caption or picture to another, all painted from the noise of one seed.

        Raises:
            InputError: fewer than two frames are requested, a caption cannot be painted, or the seed is outside 0..2^63-1.

        """
        check_seeds(1, seed)
        if frames < 2:
            raise InputError(
                f"frames={frames} is too few to interpolate; nothing was painted; set two or more"
            )
        ends = self.embedding_of(first, seed), self.embedding_of(last, seed)
        try:
            path = torch.stack([slerp(*ends, frame / (frames - 1)) for frame in range(frames)])
        except ValueError as error:
            raise InputError(f"{error}; nothing was painted; choose another seed") from error
        return self.paint(path, [seed] * frames)

    def embedding_of(self, part: Part, seed: int = 0) -> Float[Tensor, "dim"]:
        """Return the unit image embedding of a picture, or the one that the prior samples for a caption.

        Raises:
            InputError: the caption cannot be painted.

        """
        if isinstance(part, Image.Image):
            return self.image_embedding([part.convert("RGB")])[0].to(self.decoder.device)
        check_prompts([part], 1, seed)
        return self.embeddings([part], [seed])[0]

    def text_embedding(self, captions: list[str]) -> Float[Tensor, "batch dim"]:
        """Return unit text embeddings over all towers."""
        return _joined([tower.texts(captions)[0] for tower in self.towers])

    def word_encodings(self, captions: Sequence[str]) -> Float[Tensor, "batch words width"] | None:
        """Return the token states that the prior was trained to read; None for a prior that reads none."""
        return None if self.words is None else self.words.encode(captions)

    def image_embedding(self, pictures: list[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Return unit image embeddings over all towers."""
        return _joined([tower.images(pictures)[0] for tower in self.towers])

    def paint(
        self,
        embedding: Float[Tensor, "batch dim"],
        seeds: Sequence[int],
        captions: Sequence[str] | None = None,
    ) -> list[Image.Image]:
        """Return one picture per image embedding; its `info` records seed, settings, run and digests, and the decoder's neighbours, if any.

        A decoder that reads token states gets those of `captions`; with None it paints as for pictures without captions.
        """
        painted = self._pixels(embedding, seeds, captions).cpu()
        pictures = [Image.fromarray(np.asarray(pixels)) for pixels in painted]
        origin, neighbours = self._told, self.decoder.neighbours_of(embedding)
        for picture, seed, uids in zip(pictures, seeds, neighbours, strict=True):
            picture.info |= {**origin, SEED: str(seed)}
            if uids:
                picture.info[NEIGHBOURS] = " ".join(uids)
        return pictures

    def _pixels(
        self,
        embedding: Tensor,
        seeds: Sequence[int],
        captions: Sequence[str] | None,
        watching: Watching | None = None,
    ) -> Tensor:
        settings, shifted = self.decoder_settings, [seed + DECODER_SEED_OFFSET for seed in seeds]
        words = None
        if self.decoder_words is not None and captions is not None:
            distinct = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
            words = self.decoder_words.encode(list(distinct))[[distinct[caption] for caption in captions]]
        watch = None if watching is None else watching(self.decoder)
        pixels = self.decoder.sample(
            embedding, shifted, settings.sample_steps, settings.guidance, watch, words
        )
        return upsampled(self.upsamplers, pixels, embedding, shifted, watching)

    def _read(self, captions: Sequence[str]) -> tuple[dict[str, int], Tensor, Tensor | None]:
        """Return the distinct captions with their rows, their text embeddings and their token states."""
        distinct = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        return distinct, self.text_embedding(list(distinct)), self.word_encodings(list(distinct))

    def _once(
        self, captions: Sequence[str], text: Tensor, words: Tensor | None, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return self.paint(self.prior.sample(text, seeds, self.prior_sampling, words), seeds, captions)

    def _closest(self, rounds: Sequence[list[Image.Image]], text: Tensor) -> list[Image.Image]:
        """Return for each index the picture closest to its caption in the run's CLIP, the first on ties."""
        cosine = torch.stack([(self.image_embedding(pictures) * text).sum(-1) for pictures in rounds])
        best, chosen = cosine.max(0)
        pictures = [rounds[number][index] for index, number in enumerate(chosen.tolist())]
        for picture, value in zip(pictures, best.tolist(), strict=True):
            picture.info[SIMILARITY] = f"{value:.6f}"
        return pictures

    @property
    def _told(self) -> dict[str, str]:
        """Return what is recorded in every picture: how it was painted, by which run and models, from which data."""
        values = {
            SETTINGS: json.dumps(self.manner, sort_keys=True),
            RUN: self.origin.run,
            MODELS: self.models,
            DATA: self.origin.data,
        }
        return {name: value for name, value in values.items() if value}


def _check_steps(name: str, asked: int | None, most: int) -> None:
    if asked is not None and asked > most:
        raise SettingsError(
            f"{name}={asked}, but the model has only {most} timesteps; nothing was painted; set fewer steps"
        )


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _joined(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks, dim=1) / len(blocks) ** 0.5
