"""The work that one request gives the models, and how several requests are painted at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.settings.painting import PaintSettings

Part = str | Image.Image
"""A caption or a picture to paint or to mix."""


class Painter(Protocol):
    """The methods of a loaded run that the server uses; `corgi.inference.generate.Generator` has them."""

    @property
    def manner(self) -> dict[str, object]:
        """Return how it paints, as JSON."""
        ...

    def using(self, asked: PaintSettings) -> Self:
        """Return a painter with the same networks and other settings."""
        ...

    def generate_each(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Return one picture per caption and seed."""
        ...

    def steps(self, caption: str, seed: int = 0) -> list[Image.Image]:
        """Return the picture after each step of the decoder."""
        ...

    def variations(self, picture: Image.Image, n: int = 1, seed: int = 0) -> list[Image.Image]:
        """Return n pictures painted from a picture's embedding."""
        ...

    def mix(
        self, parts: Sequence[Part], weights: Sequence[float] | None = None, n: int = 1, seed: int = 0
    ) -> list[Image.Image]:
        """Return n pictures of a mixture."""
        ...

    def text_embedding(self, captions: list[str]) -> Float[Tensor, "batch dim"]:
        """Return unit text embeddings."""
        ...

    def image_embedding(self, pictures: list[Image.Image]) -> Float[Tensor, "batch dim"]:
        """Return unit image embeddings."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """n pictures of one caption or picture, or of two mixed."""

    parts: tuple[Part, ...]
    seed: int
    n: int = 1
    painting: PaintSettings = field(default_factory=PaintSettings)
    share: float = 0.5
    """Share of the second part, if there are two."""
    strip: bool = False
    embed: bool = False
    """Also return the CLIP embedding of each picture."""

    @property
    def is_plain(self) -> bool:
        """Return whether this is a single caption, which can be painted in a batch with others."""
        return len(self.parts) == 1 and isinstance(self.parts[0], str)

    @property
    def seeds(self) -> range:
        """Return one seed per picture."""
        return range(self.seed, self.seed + self.n)


@dataclass(frozen=True)
class Painted:
    """The result of a job."""

    pictures: list[Image.Image]
    manner: dict[str, object]
    strips: list[list[Image.Image]] = field(default_factory=list)
    embeddings: Float[Tensor, "n dim"] | None = None


def kind_of(job: Job) -> Hashable:
    """Return a value that is equal for jobs that may be painted together: captions with the same settings."""
    return job.painting.model_dump_json() if job.is_plain else id(job)


def paint(painter: Painter, jobs: Sequence[Job]) -> list[Painted]:
    """Paint jobs of one kind.

    Raises:
        CorgiError: these models cannot do what a job requests.

    """
    if len(jobs) == 1 and not jobs[0].is_plain:
        return [_finished(painter.using(jobs[0].painting), jobs[0], _special(painter, jobs[0]))]
    using = painter.using(jobs[0].painting)
    captions = [str(job.parts[0]) for job in jobs for _ in job.seeds]
    painted = iter(using.generate_each(captions, [seed for job in jobs for seed in job.seeds]))
    return [_finished(using, job, [next(painted) for _ in job.seeds]) for job in jobs]


def _special(painter: Painter, job: Job) -> list[Image.Image]:
    using = painter.using(job.painting)
    if len(job.parts) == 1 and isinstance(job.parts[0], Image.Image):
        return using.variations(job.parts[0], job.n, job.seed)
    if job.share == 1:  # the first weight of a mixture is positive
        return using.mix(job.parts[::-1], [1.0, 0.0], job.n, job.seed)
    return using.mix(job.parts, [1 - job.share, job.share], job.n, job.seed)


def _finished(using: Painter, job: Job, pictures: list[Image.Image]) -> Painted:
    strips = (
        [using.steps(str(job.parts[0]), seed) for seed in job.seeds] if job.strip and job.is_plain else []
    )
    embeddings = using.image_embedding(pictures) if job.embed else None
    return Painted(pictures, using.manner, strips, embeddings)
