"""A loaded run as the server uses it: one queue of requests for one painter, uploads, and training pictures."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from corgi.serving.counts import Counts
from corgi.serving.encoding import base64_of, encoded
from corgi.serving.errors import ApiError
from corgi.serving.jobs import Job, Painted, Painter, kind_of, paint
from corgi.serving.paint_queue import PaintQueue, QueueFullError
from corgi.serving.picture_index import TRAINED, PictureIndex
from corgi.serving.search import Search
from corgi.serving.uploads import Uploads
from corgi.serving.wire import (
    MAX_WORK,
    About,
    Facts,
    GenerationAnswer,
    GenerationRequest,
    Neighbour,
    PaintedPicture,
    PictureFormat,
    Told,
)
from corgi.settings.errors import CorgiError

_LOOK_EVERY_S = 0.5
"""Interval at which a waiting request checks whether its client is still connected."""
_SEEDS = 2**31


@dataclass(frozen=True)
class Asked:
    """What a request's answer needs in addition to its pictures."""

    output_format: PictureFormat
    output_compression: int | None
    as_url: bool
    nearest: int
    ignored: list[str]


@dataclass
class Studio:
    """Everything behind the routes."""

    run: str
    side: int
    painter: Painter
    uploads: Uploads
    index: PictureIndex | None = None
    """The index of the run's pictures; None: neither nearest pictures nor search."""
    search: Search | None = None
    credit: str = ""
    examples: Sequence[str] = ()
    """Captions that the page shows for clicking."""
    created: int = field(default_factory=lambda: int(time.time()))
    max_waiting: int = 32

    def __post_init__(self) -> None:
        """Create the queue and the counters."""
        self.queue: PaintQueue[Job, Painted] = PaintQueue(
            partial(paint, self.painter), kind_of, lambda job: job.n, max_waiting=self.max_waiting
        )
        self.counts = Counts(lambda: len(self.queue))

    @property
    def about(self) -> About:
        """Return what the page shows about the run."""
        return About(
            run=self.run,
            side=self.side,
            credit=self.credit,
            manner=self.painter.manner,
            has_nearest=self.index is not None,
            has_search=self.search is not None,
            examples=list(self.examples),
        )

    def job_of(self, request: GenerationRequest) -> Job:
        """Return the job of a request.

        Raises:
            ApiError: it requests more work than is allowed for one request.

        """
        mix, options = request.options.mix, request.options
        self._check_work(request)
        return Job(
            parts=(request.prompt,) if mix is None else (request.prompt, mix.prompt),
            seed=secrets.randbelow(_SEEDS) if request.seed is None else request.seed,
            n=request.n or 1,
            painting=request.painting,
            share=0.5 if mix is None else mix.share,
            strip=options.strip,
            embed=self.index is not None and options.nearest > 0,
        )

    def _check_work(self, request: GenerationRequest) -> None:
        steps = request.num_inference_steps or int(str(self.painter.manner["steps"]))
        work = (request.n or 1) * request.options.candidates * steps
        if work > MAX_WORK:
            raise ApiError(
                400,
                f"n x candidates x steps is {work}, but the limit for one request is {MAX_WORK}",
                code="too_much_work",
            )

    async def answer(
        self, job: Job, asked: Asked, ticket: str | None, is_gone: Callable[[], Awaitable[bool]]
    ) -> GenerationAnswer:
        """Wait in the queue, paint, and return the answer.

        Raises:
            ApiError: the queue is full, the client disconnected, or the models cannot do what is requested.

        """
        started = time.monotonic()
        try:
            painted = await self._painted(job, ticket, is_gone)
        except QueueFullError as error:
            raise ApiError(
                503,
                "too many requests are waiting; try again later",
                code="queue_full",
                retry_after_s=max(1, round(error.wait_s)),
            ) from error
        except CorgiError as error:
            raise ApiError(400, str(error), code="cannot_paint") from error
        self.counts.painted(job.n, time.monotonic() - started)
        return await asyncio.to_thread(self._answer_of, job, asked, painted)

    async def _painted(self, job: Job, ticket: str | None, is_gone: Callable[[], Awaitable[bool]]) -> Painted:
        """Wait for the pictures; a request whose client disconnects leaves the queue."""
        waiting = asyncio.create_task(self.queue.submit(job, ticket))
        try:
            while not (await asyncio.wait([waiting], timeout=_LOOK_EVERY_S))[0]:
                if await is_gone():
                    raise ApiError(408, "the client disconnected", code="client_gone")
            return waiting.result()
        finally:
            waiting.cancel()

    def _answer_of(self, job: Job, asked: Asked, painted: Painted) -> GenerationAnswer:
        nearest = self._nearest(painted, asked.nearest)
        strips = painted.strips or [[] for _ in painted.pictures]
        pictures: list[PaintedPicture] = []
        for seed, picture, near, strip in zip(job.seeds, painted.pictures, nearest, strips, strict=True):
            text = base64_of(encoded(picture, asked.output_format, asked.output_compression))
            origin = Told(
                seed=seed,
                manner=painted.manner,
                nearest=list(near),
                strip=[base64_of(encoded(one, "png", None)) for one in strip],
            )
            url = f"data:image/{asked.output_format};base64,{text}" if asked.as_url else None
            pictures.append(PaintedPicture(b64_json=None if asked.as_url else text, url=url, corgi=origin))
        return GenerationAnswer(
            created=int(time.time()),
            data=pictures,
            output_format=asked.output_format,
            size=f"{self.side}x{self.side}",
            corgi=Facts(run=self.run, ignored=asked.ignored),
        )

    def _nearest(self, painted: Painted, number: int) -> Sequence[Sequence[Neighbour]]:
        if self.index is None or painted.embeddings is None:
            return [[] for _ in painted.pictures]
        return [
            [
                Neighbour(uid=one.uid, similarity=round(one.similarity, 4))
                for one in self.index.search(vector, number, TRAINED)
            ]
            for vector in painted.embeddings.cpu().numpy()
        ]

    def close(self) -> None:
        """Cancel the waiting requests and close the uploads."""
        self.queue.close()
        self.uploads.close()
