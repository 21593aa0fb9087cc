"""The FastAPI app: `/v1/images/generations` and related routes, the page, health and metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from corgi.serving.errors import ApiError, ErrorBody
from corgi.serving.gate import Gate, Rules
from corgi.serving.jobs import Job
from corgi.serving.search_routes import add_search
from corgi.serving.studio import Asked, Studio
from corgi.serving.wire import (
    MAX_PICTURES,
    MAX_PROMPT_CHARS,
    MAX_STEPS,
    SIZE,
    TICKET,
    About,
    GenerationAnswer,
    GenerationRequest,
    Health,
    ModelEntry,
    ModelList,
    QueuePosition,
)

PAGE = Path(__file__).resolve().parent / "page"
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/search": ("search.html", "text/html; charset=utf-8"),
    "/search.js": ("search.js", "text/javascript; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request is wrong.",
        401: "The token is missing or wrong.",
        403: "The host or origin is wrong.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        429: "Too many requests from this address.",
        503: "Too many requests are waiting.",
    }.items()
}
_IMAGES = {"image/png": {}, "image/jpeg": {}, "image/webp": {}}
_MIMES = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"RIFF": "image/webp"}


def make_app(studio: Studio, rules: Rules) -> FastAPI:
    """Return the app for a loaded run."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.close()

    app = FastAPI(
        title="Corgi",
        summary=f"Pictures of the run {studio.run}",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        responses=_ERRORS,
    )
    app.add_middleware(Gate, rules=rules, seen=studio.counts.answered)
    _add_errors(app)
    _add_painting(app, studio)
    _add_facts(app, studio)
    if studio.search is not None:
        add_search(app, studio.search, studio.uploads, {404: _ERRORS[400]})
    _add_page(app)
    _leave_out_422(app)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        names = [str(name) for name in first["loc"][1:]]  # after body, path or query
        param = ".".join(names) or None
        message = f"{param or 'body'}: {first['msg']}"
        return ApiError(400, message, param=param, code=first["type"]).response()

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        response = ApiError(error.status_code, str(error.detail), code=f"http_{error.status_code}").response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return ApiError(500, "the server failed; its log has the reason", code="internal").response()


def _add_painting(app: FastAPI, studio: Studio) -> None:
    @app.post("/v1/images/generations", tags=["pictures"], response_model_exclude_none=True)
    async def generations(body: GenerationRequest, request: Request) -> GenerationAnswer:
        """Paint a caption."""
        job = studio.job_of(body)
        return await studio.answer(job, _asked(body), body.options.ticket, request.is_disconnected)

    @app.post("/v1/images/edits", tags=["pictures"], response_model_exclude_none=True)
    async def edits(
        request: Request,
        image: Annotated[UploadFile, File(description="The picture to vary: JPEG, PNG, WebP or GIF.")],
        prompt: Annotated[str, Form(max_length=MAX_PROMPT_CHARS)] = "",
        prompt_share: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.5,
        n: Annotated[int, Form(ge=1, le=MAX_PICTURES)] = 1,
        size: Annotated[str | None, Form(pattern=SIZE)] = None,
        response_format: Annotated[str | None, Form(pattern="^(b64_json|url)$")] = None,
        output_format: Annotated[str | None, Form(pattern="^(png|webp|jpeg)$")] = None,
        seed: Annotated[int | None, Form(ge=0, lt=2**62)] = None,
        num_inference_steps: Annotated[int | None, Form(ge=1, le=MAX_STEPS)] = None,
        guidance_scale: Annotated[float | None, Form(ge=0, le=100, allow_inf_nan=False)] = None,
        nearest: Annotated[int, Form(ge=0, le=8)] = 0,
        ticket: Annotated[str | None, Form(pattern=TICKET)] = None,
    ) -> GenerationAnswer:
        """Paint variations of a picture, or with a prompt, of a mixture of picture and prompt."""
        body = GenerationRequest.model_validate(
            {
                "prompt": prompt.strip() or "variation",
                "n": n,
                "size": size,
                "response_format": response_format,
                "output_format": output_format,
                "seed": seed,
                "num_inference_steps": num_inference_steps,
                "guidance_scale": guidance_scale,
                "corgi": {"nearest": nearest, "ticket": ticket},
            }
        )
        plain = studio.job_of(body)
        picture = await studio.uploads.picture(await image.read())
        parts = (picture, prompt) if prompt.strip() else (picture,)
        job = Job(parts, plain.seed, plain.n, plain.painting, prompt_share, embed=plain.embed)
        return await studio.answer(job, _asked(body), ticket, request.is_disconnected)


def _asked(body: GenerationRequest) -> Asked:
    return Asked(
        output_format=body.output_format or "png",
        output_compression=body.output_compression,
        as_url=body.response_format == "url",
        nearest=body.options.nearest,
        ignored=["negative_prompt"] if body.negative_prompt else [],
    )


def _add_facts(app: FastAPI, studio: Studio) -> None:
    model = ModelEntry(id=studio.run, created=studio.created)

    @app.get("/v1/models", tags=["facts"])
    async def models() -> ModelList:
        """List the server's only model."""
        return ModelList(data=[model])

    @app.get("/v1/models/{model_id}", tags=["facts"], responses={404: _ERRORS[400]})
    async def one_model(model_id: Annotated[str, PathParameter(max_length=200)]) -> ModelEntry:
        """Return the model with this name."""
        if model_id != model.id:
            raise ApiError(404, f"the only model is {model.id}", param="model", code="model_not_found")
        return model

    @app.get("/health", tags=["facts"])
    async def health() -> Health:
        """Return whether the server is running, and how many requests are waiting."""
        return Health(run=studio.run, waiting=len(studio.queue))

    @app.get(
        "/metrics", tags=["facts"], response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        """Return counters for Prometheus."""
        return Response(studio.counts.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/corgi/about", tags=["facts"])
    async def about() -> About:
        """Return what the page shows about the run."""
        return studio.about

    @app.get("/corgi/queue/{ticket}", tags=["facts"])
    async def position(ticket: Annotated[str, PathParameter(pattern=TICKET)]) -> QueuePosition:
        """Return a request's position in the queue."""
        ahead = studio.queue.position(ticket)
        seconds = studio.queue.seconds_per_job * (1 + (ahead or 0))
        return QueuePosition(position=ahead, waiting=len(studio.queue), seconds=round(seconds, 1))

    @app.get(
        "/corgi/pictures/{uid}",
        tags=["facts"],
        response_class=Response,
        responses={200: {"content": _IMAGES}, 404: _ERRORS[400]},
    )
    def training_picture(uid: Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$")]) -> Response:
        """Return a picture of the run in its stored encoding."""
        data = None if studio.index is None else studio.index.encoding(uid)
        if data is None:
            raise ApiError(404, "no picture of this run has that uid", param="uid", code="not_found")
        mime = next(
            (mime for start, mime in _MIMES.items() if data.startswith(start)), "application/octet-stream"
        )
        return Response(data, media_type=mime)


def _add_page(app: FastAPI) -> None:
    """Serve the page's files by fixed names; a path from a client is never used on the disk."""
    for path, (name, mime) in PAGE_FILES.items():
        app.add_api_route(path, _sender(PAGE / name, mime), include_in_schema=False)


def _sender(file: Path, mime: str) -> Callable[[], Awaitable[Response]]:
    """Return a route without parameters that sends one file."""

    async def send() -> Response:
        return FileResponse(file, media_type=mime)

    return send


def _leave_out_422(app: FastAPI) -> None:
    """Remove status 422 from the API description: a request that does not validate is answered with 400."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        return schema

    app.openapi = openapi
