"""The bodies of the HTTP API: those of `/v1/images/generations` as existing clients send them, and ours beside them."""

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
    """Share of the second caption: 0 is the first alone."""


class Options(BaseModel):
    """What Corgi does beyond other servers."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    prior_steps: Steps | None = None
    """Sampler steps of the prior."""
    candidates: int = Field(default=1, ge=1, le=8)
    """Pictures painted for each one returned; the closest to the caption is kept."""
    strip: bool = False
    """Also return what the decoder expects of the picture after each step."""
    nearest: int = Field(default=0, ge=0, le=MAX_NEAREST)
    """Training pictures named for each picture, by the run's own CLIP."""
    mix: Mix | None = None
    ticket: Ticket | None = None
    """Name chosen by the client under which `/corgi/queue/{ticket}` tells the position."""


class GenerationRequest(BaseModel):
    """A request for pictures. Fields of hosted models that mean nothing here are accepted and ignored."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)
    prompt: Prompt
    model: str | None = Field(default=None, max_length=200)
    """Ignored: the server has one model."""
    n: int | None = Field(default=1, ge=1, le=MAX_PICTURES)
    size: Size | None = None
    """Any size is accepted; pictures have the side the model was trained on, which the answer names."""
    response_format: Literal["b64_json", "url"] | None = None
    """url: a data URL, since nothing is stored."""
    output_format: PictureFormat | None = None
    output_compression: int | None = Field(default=None, ge=0, le=100)
    """Quality of webp and jpeg."""
    stream: Literal[False] | None = None
    """Streams are not answered."""
    seed: Seed | None = None
    """Seed of the first picture; picture i has seed + i. Without one it is drawn, and named in the answer."""
    num_inference_steps: Steps | None = None
    """Sampler steps of the decoder."""
    guidance_scale: Scale | None = None
    """Classifier-free guidance scale of the decoder."""
    negative_prompt: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    """Ignored, and named as such in the answer: the model was not trained with one."""
    corgi: Options | None = None

    @property
    def options(self) -> Options:
        """Return Corgi's own options."""
        return self.corgi or Options()

    @property
    def painting(self) -> PaintSettings:
        """Return how to paint."""
        return PaintSettings(
            steps=self.num_inference_steps,
            guidance=self.guidance_scale,
            prior_steps=self.options.prior_steps,
            best_of=self.options.candidates,
        )

    @model_validator(mode="after")
    def _what_goes_together(self) -> "GenerationRequest":
        if self.options.mix is not None and (self.options.strip or self.options.candidates > 1):
            raise ValueError("corgi.mix goes with neither corgi.strip nor corgi.candidates")
        return self


class Neighbour(BaseModel):
    """A training picture: `/corgi/pictures/{uid}` shows it."""

    uid: str
    similarity: float
    """Cosine of the two pictures' CLIP embeddings."""


class Told(BaseModel):
    """What Corgi tells of a picture."""

    seed: int
    manner: dict[str, object]
    """Steps, samplers, guidance and candidates it was painted with."""
    nearest: list[Neighbour] = []
    strip: list[str] = []
    """Pictures after each step, base64."""


class PaintedPicture(BaseModel):
    """One picture of an answer."""

    b64_json: str | None = None
    url: str | None = None
    corgi: Told


class Facts(BaseModel):
    """What Corgi tells of a whole answer."""

    run: str
    ignored: list[str] = []
    """Fields of the request that were given and mean nothing here."""


class GenerationAnswer(BaseModel):
    """The pictures of a request."""

    created: int
    data: list[PaintedPicture]
    output_format: PictureFormat
    size: str
    corgi: Facts


class ModelEntry(BaseModel):
    """The one model of the server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["corgi"] = "corgi"


class ModelList(BaseModel):
    """All models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    """Whether the server paints."""

    status: Literal["ok"] = "ok"
    run: str
    waiting: int


class QueuePosition(BaseModel):
    """Where a request is in the line."""

    position: int | None
    """0: it is being painted. null: it is not waiting."""
    waiting: int
    seconds: float
    """Estimated until it is painted."""


class About(BaseModel):
    """What the page shows of the run."""

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
