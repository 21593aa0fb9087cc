"""Paints and saves a request: captions in batches, variations, mixtures, interpolations, and pictures after each step."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from corgi.inference.finish import finished
from corgi.inference.generate import Generator, Part
from corgi.inference.loading import load
from corgi.inference.png import save_png
from corgi.inference.prompts import PROMPT, file_name
from corgi.inference.request import PICTURE_MARK, Request
from corgi.inference.strips import save_gif, strip
from corgi.settings.errors import InputError
from corgi.settings.painting import FinishSettings
from corgi.settings.section import digest
from corgi.storage.errors import storage_full

AT_ONCE = 64
"""Pictures painted in one batch."""
REJECTED = "rejected.csv"
"""File in the folder of pictures that lists the rows that were not painted."""


def paint_request(request: Request) -> Iterator[str]:
    """Paint the request and yield the path of each file; the run is loaded once.

    Raises:
        InputError: the run cannot be used, or a picture cannot be read.
        SettingsError: more steps are requested than the models have timesteps.
        StorageError: the disk is full.

    """
    studio = Studio.open(request)
    yield from studio.captions()
    yield from studio.variations()
    yield from studio.mixture()
    yield from studio.way()
    yield from studio.rejected()


@dataclass(frozen=True)
class Studio:
    """A request with the generator that paints it; `models` is a digest of models and settings for the file names."""

    request: Request
    generator: Generator
    models: str

    @classmethod
    def open(cls, request: Request) -> "Studio":
        """Load the run and apply the request's settings."""
        loaded = load(request.run, request.embedder)
        generator = loaded.using(request.asked)
        own = request.embedder == "prior" and generator.manner == loaded.manner
        changed = not own or request.finish != FinishSettings()
        finish = request.finish.model_dump(mode="json")
        models = digest([loaded.models, generator.manner, finish]) if changed else loaded.models
        return cls(request, generator, models)

    def captions(self) -> Iterator[str]:
        """Paint the captions and the rows of the file, each distinct caption once; a batch is AT_ONCE pictures, of one or several captions."""
        request = self.request
        rows = (prompt.caption for prompt in request.rows if not prompt.fault)
        captions = dict.fromkeys((*request.captions, *rows))
        pairs = ((caption, request.seed + i) for caption in captions for i in range(request.n))
        while batch := list(islice(pairs, AT_ONCE)):
            pictures = self.generator.generate_each(*map(list, zip(*batch, strict=True)))
            for picture, (caption, seed) in zip(pictures, batch, strict=True):
                yield self._save(picture, file_name(caption, seed, self.models))
        if request.show_steps is not None:
            yield from self._steps(list(captions))

    def variations(self) -> Iterator[str]:
        """Paint variations of the request's pictures."""
        for path in self.request.vary:
            pictures = self.generator.variations(read_picture(path), self.request.n, self.request.seed)
            yield from self._save_each(pictures, f"variation of {Path(path).name}")

    def mixture(self) -> Iterator[str]:
        """Paint the mixture of the request's captions and pictures."""
        request = self.request
        if request.mix:
            parts = [part_of(text) for text in request.mix]
            pictures = self.generator.mix(parts, request.weights, request.n, request.seed)
            weights = "" if request.weights is None else " ".join(f"{weight:g}" for weight in request.weights)
            yield from self._save_each(pictures, f"mix of {', '.join(request.mix)} {weights}".strip())

    def way(self) -> Iterator[str]:
        """Paint the strip of pictures from one part to another."""
        request = self.request
        if request.between:
            first, last = (part_of(text) for text in request.between)
            pictures = self.generator.interpolate(first, last, request.frames, request.seed)
            name = f"from {request.between[0]} to {request.between[1]} in {request.frames}"
            yield from self._save_each([strip(pictures)], name)

    def rejected(self) -> Iterator[str]:
        """Write a file of the rows that were not painted, with their reasons, if there are any."""
        faults = [(prompt.row, prompt.fault) for prompt in self.request.rows if prompt.fault]
        if faults:
            path = self.request.out / REJECTED
            try:
                with path.open("w", newline="", encoding="utf-8") as sink:
                    writer = csv.writer(sink)
                    writer.writerow(["row", "reason", "detail"])
                    writer.writerows([row, fault.reason, fault.what] for row, fault in faults)
            except OSError as error:
                storage_full(error, path)
            yield f"{path}: {len(faults)} of {len(self.request.rows)} rows were not painted"

    def _steps(self, captions: Sequence[str]) -> Iterator[str]:
        for caption in captions:
            shown = self.generator.steps(caption, self.request.seed)
            name = file_name(f"steps of {caption}", self.request.seed, self.models)
            if self.request.show_steps == "gif":
                path = self.request.out / f"{Path(name).stem}.gif"
                save_gif([finished(picture, self.request.finish) for picture in shown], path)
                yield str(path)
            else:
                yield self._save(strip(shown), name)

    def _save_each(self, pictures: Sequence[Image.Image], name: str) -> Iterator[str]:
        for index, picture in enumerate(pictures):
            picture.info[PROMPT] = name
            yield self._save(picture, file_name(name, self.request.seed + index, self.models))

    def _save(self, picture: Image.Image, name: str) -> str:
        path = self.request.out / name
        save_png(finished(picture, self.request.finish), path)
        return str(path)


def part_of(text: str) -> Part:
    """Return a caption as it is, or the picture whose path follows the mark.

    Raises:
        InputError: the picture cannot be read.

    """
    return read_picture(text.removeprefix(PICTURE_MARK)) if text.startswith(PICTURE_MARK) else text


def read_picture(path: str) -> Image.Image:
    """Return a picture of the user as RGB.

    Raises:
        InputError: it cannot be read.

    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read as a picture: {cause}; pictures painted before are kept; name another picture"
        ) from error
