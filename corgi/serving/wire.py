"""The bodies of the HTTP API: those of `/v1/images/generations` as existing clients send them, and Corgi's own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corgi.inference.prompts import MAX_SEED
from corgi.settings.painting import PaintSettings

MAX_PROMPT_CHARS = 400
MAX_PICTURES = 10
MAX_STEPS = 250
MAX_WORK = 4000
"""Largest product of pictures, candidates and decoder steps of one request."""
MAX_NEAREST = 8

Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS, pattern=r"\S")]
SIZE = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
TICKET = "^[a-z0-9]{1,64}$"
Size = Annotated[str, Field(pattern=SIZE)]
Ticket = Annotated[str, Field(pattern=TICKET)]
PictureFormat = Literal["png", "webp", "jpeg"]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED - MAX_PICTURES)]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]


class Mix(BaseModel):
    """A second caption that is mixed into the first on the sphere of image embeddings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    prompt: Prompt
    share: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    """Share of the second caption; at 0 only the first is painted."""


class Options(BaseModel):
    """Options that other servers do not have."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    prior_steps: Steps | None = None
    """Sampler steps of the prior."""
    candidates: int = Field(default=1, ge=1, le=8)
    """Pictures painted for each one returned; the closest to the caption is kept."""
    strip: bool = False
    """Also return the picture that is predicted after each step."""
    nearest: int = Field(default=0, ge=0, le=MAX_NEAREST)
    """Number of nearest training pictures to name for each picture, by the run's own CLIP."""
    mix: Mix | None = None
    ticket: Ticket | None = None
    """Name chosen by the client, under which `/corgi/queue/{ticket}` returns the position."""


class GenerationRequest(BaseModel):
    """A request for pictures. Fields of hosted models that have no meaning here are accepted and ignored."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)
    prompt: Prompt
    model: str | None = Field(default=None, max_length=200)
    """Ignored: the server has one model."""
    n: int | None = Field(default=1, ge=1, le=MAX_PICTURES)
    size: Size | None = None
    """Any size is accepted; pictures have the side on which the model was trained, which the answer states."""
    response_format: Literal["b64_json", "url"] | None = None
    """url: a data URL, since nothing is stored."""
    output_format: PictureFormat | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    """Quality of webp and jpeg."""
    stream: Literal[False] | None = None
    """Streaming is not supported."""
    seed: Seed | None = None
    """Seed of the first picture; picture i has seed + i. Without one it is drawn at random, and stated in the answer."""
    num_inference_steps: Steps | None = None
    """Sampler steps of the decoder."""
    guidance_scale: Scale | None = None
    """Classifier-free guidance scale of the decoder."""
    negative_prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    """Ignored, and listed as ignored in the answer: the model was not trained with one."""
    corgi: Options | None = None

    @property
    def options(self) -> Options:
        """Return Corgi's own options."""
        return self.corgi or Options()

    @property
    def painting(self) -> PaintSettings:
        """Return the settings for painting."""
        return PaintSettings(
            steps=self.num_inference_steps,
            guidance=self.guidance_scale,
            prior_steps=self.options.prior_steps,
            best_of=self.options.candidates,
        )

    @model_validator(mode="after")
    def _what_goes_together(self) -> "GenerationRequest":
        if self.options.mix is not None and (self.options.strip or self.options.candidates > 1):
            raise ValueError("corgi.mix cannot be combined with corgi.strip or corgi.candidates")
        return self


class Neighbour(BaseModel):
    """A training picture: `/corgi/pictures/{uid}` shows it."""

    uid: str
    similarity: float
    """Cosine of the two pictures' CLIP embeddings."""


class Told(BaseModel):
    """What Corgi returns about a picture."""

    seed: int
    manner: dict[str, object]
    """Steps, samplers, guidance and candidates with which it was painted."""
    nearest: list[Neighbour] = []
    strip: list[str] = []
    """Pictures after each step, base64."""


class PaintedPicture(BaseModel):
    """One picture of an answer."""

    b64_json: str | None = None
    url: str | None = None
    corgi: Told


class Facts(BaseModel):
    """What Corgi returns about a whole answer."""

    run: str
    ignored: list[str] = []
    """Fields of the request that were set but have no meaning here."""


class GenerationAnswer(BaseModel):
    """The pictures of a request."""

    created: int
    data: list[PaintedPicture]
    output_format: PictureFormat
    size: str
    corgi: Facts


class ModelEntry(BaseModel):
    """The server's only model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["corgi"] = "corgi"


class ModelList(BaseModel):
    """All models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    """Whether the server is running."""

    status: Literal["ok"] = "ok"
    run: str
    waiting: int


class QueuePosition(BaseModel):
    """A request's position in the queue."""

    position: int | None
    """0: it is being painted. null: it is not waiting."""
    waiting: int
    seconds: float
    """Estimated seconds until it is painted."""


class About(BaseModel):
    """What the page shows about the run."""

    run: str
    side: int
    credit: str
    manner: dict[str, object]
    has_nearest: bool
    has_search: bool
    examples: list[str]
    """Captions of the run's own pictures."""
    max_prompt_chars: int = MAX_PROMPT_CHARS
    max_pictures: int = MAX_PICTURES
    max_steps: int = MAX_STEPS
