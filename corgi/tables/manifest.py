"""What a commit says: files with sizes and hashes, rows by reason, settings and inputs."""

import json
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corgi.settings.section import digest
from corgi.tables.schema import Reason

_SEAL = "content_digest"
_Kind = TypeVar("_Kind", bound=BaseModel)


class RowCounts(BaseModel):
    """Rows of one commit; rows in = kept + rejected by reason, or the commit is refused."""

    model_config = ConfigDict(frozen=True)
    rows_in: int = Field(ge=0)
    kept: int = Field(ge=0)
    rejected: dict[Reason, int] = {}

    @model_validator(mode="after")
    def _conserved(self) -> Self:
        if self.rows_in != self.kept + sum(self.rejected.values()):
            raise ValueError(
                f"rows are not conserved: {self.rows_in} in, {self.kept} kept, {dict(self.rejected)} rejected"
            )
        return self

    def __add__(self, other: "RowCounts") -> "RowCounts":
        """Return the counts of both."""
        reasons = sorted({*self.rejected, *other.rejected})
        rejected = {
            reason: self.rejected.get(reason, 0) + other.rejected.get(reason, 0) for reason in reasons
        }
        return RowCounts(rows_in=self.rows_in + other.rows_in, kept=self.kept + other.kept, rejected=rejected)


class FileEntry(BaseModel):
    """One committed file: its table, private name, bytes, hash and rows."""

    model_config = ConfigDict(frozen=True)
    table: str
    name: str
    size: int
    sha256: str
    rows: int = 0


class _Placed(BaseModel):
    """A manifest that knows the path, relative to the store, it was read from."""

    model_config = ConfigDict(frozen=True)
    path: str = ""

    def at(self, path: str) -> Self:
        """Return the same manifest at a path."""
        return self.model_copy(update={"path": path})


class ShardManifest(_Placed):
    """A committed shard."""

    stage: str
    shard: str
    key: str
    version: int
    code: str
    settings: dict[str, Any]
    inputs: dict[str, tuple[str, ...]]
    files: tuple[FileEntry, ...]
    rows: RowCounts
    facts: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        """Name the content: what it was made from and what came out, not where or by which attempt."""
        files = sorted((entry.table, entry.sha256) for entry in self.files)
        return digest(
            {
                "stage": self.stage,
                "shard": self.shard,
                "key": self.key,
                "files": files,
                "rows": self.rows.model_dump(mode="json"),
            }
        )


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard as its stage lists it; small, since a stage may list 80,000 of them."""

    shard: str
    path: str
    digest: str


class StageManifest(_Placed):
    """A complete stage: every shard's manifest by digest."""

    stage: str
    key: str
    version: int
    code: str
    commit: str | None
    settings: dict[str, Any]
    inputs: dict[str, str]
    shards: tuple[ShardEntry, ...]
    rows: RowCounts

    @property
    def digest(self) -> str:
        """Name the content of all shards."""
        return digest({"stage": self.stage, "shards": [entry.digest for entry in self.shards]})


def sealed(manifest: BaseModel) -> str:
    """Return a manifest's JSON, without its path, with a digest of itself inside."""
    values = json.loads(manifest.model_dump_json(exclude={"path"}))
    return json.dumps({**values, _SEAL: digest(values)})


def unsealed(text: str, kind: type[_Kind]) -> _Kind:
    """Return the manifest in a text.

    Raises:
        ValueError: the text is not what was sealed.

    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop(_SEAL, None) != digest(values):
        raise ValueError("the manifest does not match the digest inside it")
    return kind.model_validate(values)
