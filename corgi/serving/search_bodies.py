"""The bodies of search: Corgi's own, and clip-retrieval's as its clients send and read them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corgi.serving.wire import Prompt

MAX_HITS = 200
MAX_SHEETS = 48
"""Largest number of clusters in one answer: each takes a search."""
UID = "^[0-9a-f]{32}$"
Uid = Annotated[str, Field(pattern=UID)]


class SearchRequest(BaseModel):
    """A query, which is one of text, uid and cluster, and filters on the pictures."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    text: Prompt | None = None
    uid: Uid | None = None
    """A picture of the run: similar ones are found."""
    cluster: int | None = Field(default=None, ge=0, le=1_000_000)
    """A cluster of the shift: the pictures nearest to its mean."""
    number: int = Field(default=24, ge=1, le=MAX_HITS)
    split: Literal["train", "val", "test"] | None = None
    keep: bool | None = None
    reason: str | None = Field(default=None, max_length=64)
    domain: str | None = Field(default=None, max_length=253)

    @model_validator(mode="after")
    def _one_question(self) -> "SearchRequest":
        if sum(value is not None for value in (self.text, self.uid, self.cluster)) != 1:
            raise ValueError("give one of text, uid and cluster")
        return self


class Hit(BaseModel):
    """A picture of the result."""

    uid: str
    similarity: float
    split: str
    keep: bool
    reason: str | None
    domain: str | None


class SearchAnswer(BaseModel):
    """The pictures with the largest cosine, largest first."""

    hits: list[Hit]
    seconds: float


class ListRow(BaseModel):
    """A row of a list that names a picture: the list's digest, and the row's number, counted from 0."""

    source: str
    row: int


class RowHistory(BaseModel):
    """Everything that the run has recorded about a picture."""

    uid: str
    facts: dict[str, str | int | None]
    captions: list[str]
    lists: list[ListRow]
    keep: bool
    reason: str | None
    take_down: str
    """Command that permanently removes it from every table."""


class ShiftCluster(BaseModel):
    """A cluster of the shift, and the pictures nearest to its mean."""

    cluster: int
    count: int
    nearest: list[str]


class ClusterList(BaseModel):
    """Some clusters, largest first, and the total number of clusters."""

    clusters: list[ShiftCluster]
    total: int


class KnnRequest(BaseModel):
    """A request as clip-retrieval's clients send it; `image_url` is not supported: the server fetches nothing."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)
    text: Prompt | None = None
    image: str | None = Field(default=None, max_length=8 * 2**20)
    """A picture, base64."""
    embedding_input: list[float] | None = Field(default=None, max_length=16_384)
    num_images: int = Field(default=24, ge=1, le=MAX_HITS)
    num_result_ids: int | None = Field(default=None, ge=1, le=MAX_HITS)
    modality: Literal["image", "text"] | None = "image"
    indice_name: str | None = Field(default=None, max_length=200)


class KnnHit(BaseModel):
    """A picture as clip-retrieval's clients read it; `id` is its row in the index."""

    id: int
    similarity: float
    url: str | None = None
    caption: str | None = None


class MetadataRequest(BaseModel):
    """A request for rows by their ids."""

    model_config = ConfigDict(extra="ignore")
    ids: list[Annotated[int, Field(ge=0)]] = Field(max_length=MAX_HITS)
