"""A painter of flat colours, for tests of what is around the models: the colour is a function of caption, seed and manner."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from PIL import Image

from corgi.inference.prompts import PROMPT
from corgi.serving.studio import Studio
from corgi.serving.uploads import Uploads
from corgi.settings.errors import InputError
from corgi.settings.painting import PaintSettings

SIDE = 8
BAD = "cannot be painted"
"""A caption that the painter refuses, as a model may."""


@dataclass(frozen=True)
class Colours:
    """Paints squares of one colour; `calls` records the captions of each call."""

    asked: PaintSettings = field(default_factory=PaintSettings)
    calls: list[list[str]] = field(default_factory=list)

    @property
    def manner(self) -> dict[str, object]:
        return {
            "steps": self.asked.steps or 20,
            "prior_steps": 8,
            "guidance": 3.0,
            "best_of": self.asked.best_of,
        }

    def using(self, asked: PaintSettings) -> Self:
        return replace(self, asked=asked)

    def generate_each(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.calls.append(list(captions))
        if BAD in captions:
            raise InputError("no; nothing was painted; ask for something else")
        return [colour(caption, seed) for caption, seed in zip(captions, seeds, strict=True)]

    def steps(self, caption: str, seed: int = 0) -> list[Image.Image]:
        return [colour(f"step {step}", seed) for step in range(3)]

    def variations(self, picture: Image.Image, n: int = 1, seed: int = 0) -> list[Image.Image]:
        return [picture.resize((SIDE, SIDE)) for _ in range(n)]

    def mix(
        self,
        parts: Sequence[str | Image.Image],
        weights: Sequence[float] | None = None,
        n: int = 1,
        seed: int = 0,
    ) -> list[Image.Image]:
        texts = [part if isinstance(part, str) else part.resize((1, 1)).tobytes().hex() for part in parts]
        return [colour(f"{texts} {weights}", seed + index) for index in range(n)]

    def text_embedding(self, captions: list[str]) -> torch.Tensor:
        return self.image_embedding([colour(caption, 0) for caption in captions])

    def image_embedding(self, pictures: list[Image.Image]) -> torch.Tensor:
        rows = [torch.tensor(picture.getpixel((0, 0)), dtype=torch.float32) + 1 for picture in pictures]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def colour(text: str, seed: int) -> Image.Image:
    """Return the square of a caption and seed."""
    red, green, blue = hashlib.sha256(f"{text} {seed}".encode()).digest()[:3]
    picture = Image.new("RGB", (SIDE, SIDE), (red, green, blue))
    picture.info[PROMPT] = text
    return picture


def studio(painter: Colours | None = None, **values: object) -> Studio:
    """Return a studio over a painter of colours."""
    made = {"run": "colours", "side": SIDE, "painter": painter or Colours(), "uploads": Uploads(2**20, 16)}
    return Studio(**{**made, **values})  # pyright: ignore[reportArgumentType]
