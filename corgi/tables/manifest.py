"""Manifests, the contents of a commit: files with sizes and hashes, rows by reason, settings and inputs."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# JSON gives values of any type

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corgi.settings.section import digest
from corgi.tables.schema import Reason

CARRIED = "carried"
"""Fact of a shard: how many of its rows were taken over from commits for another list."""
_SEAL = "content_digest"
_Kind = TypeVar("_Kind", bound=BaseModel)


class RowCounts(BaseModel):
    """Row counts of one commit; ValueError unless rows in = kept + sum of rejected by reason."""

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

    @property
    def summary(self) -> str:
        """Return the counts as one line, reasons in order of their names."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.rejected.items()))
        num_rejected = sum(self.rejected.values())
        return f"{self.rows_in} in = {self.kept} kept + {num_rejected} rejected" + (
            f" ({reasons})" if reasons else ""
        )


class FileEntry(BaseModel):
    """One committed file: its table, private name, bytes, hash and rows."""

    model_config = ConfigDict(frozen=True)
    table: str
    name: str
    size: int
    sha256: str
    rows: int = 0
    blocks: str = ""
    """Hashes of the blocks of a table that is read by columns (corgi/tables/blocks.py); empty: it is read completely."""


class _Placed(BaseModel):
    """A manifest with the path, relative to the store, from which it was read."""

    model_config = ConfigDict(frozen=True)
    path: str = ""

    def at(self, path: str) -> Self:
        """Return the same manifest at a path."""
        return self.model_copy(update={"path": path})


class Listing(Protocol):
    """An object that lists a shard's files: its manifest, or its entry in the stage's index."""

    @property
    def stage(self) -> str:
        """Return the stage that made the shard."""
        ...

    @property
    def path(self) -> str:
        """Return the manifest's path relative to the store."""
        ...

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Return the committed files."""
        ...


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
    origin: str = ""
    """Key under which the same content was first made; empty: `key`."""

    @property
    def named(self) -> str:
        """Return the key that is part of the digest."""
        return self.origin or self.key

    @property
    def digest(self) -> str:
        """Return a digest of the content: of its first key and its result, but not of where or by which attempt it was made."""
        files = sorted((entry.table, entry.sha256) for entry in self.files)
        return digest(
            {
                "stage": self.stage,
                "shard": self.shard,
                "key": self.named,
                "files": files,
                "rows": self.rows.model_dump(mode="json"),
            }
        )

    def named_by(self, earlier: Iterable[Sequence[str]]) -> Self:
        """Return the manifest with the origin of the first of `earlier`, each (key, digest), that has the same content, if any."""
        for key, found in earlier:
            same = self.model_copy(update={"origin": "" if key == self.key else key})
            if same.digest == found:
                return same
        return self


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard in its stage's manifest; small, because a stage may list 80,000 shards."""

    shard: str
    path: str
    digest: str
    origin: str = ""

    @classmethod
    def of(cls, manifest: ShardManifest) -> Self:
        """Return the entry of a committed shard."""
        return cls(manifest.shard, manifest.path, manifest.digest, manifest.origin)

    @property
    def named(self) -> str:
        """Return the key that is part of the digest."""
        return self.origin or self.path.split("/")[1]


class StageManifest(_Placed):
    """A complete stage: it lists every shard's manifest with its digest."""

    stage: str
    key: str
    version: int
    code: str
    commit: str | None
    settings: dict[str, Any]
    inputs: dict[str, str]
    shards: tuple[ShardEntry, ...]
    rows: RowCounts
    parts: dict[str, int] | None = None
    """Versions of the parts that the recipe used; None in manifests of version 0.1, when all were 0."""
    outside: Any = None
    """The part of the key about files outside the store; None in manifests of version 0.1."""
    index: FileEntry | None = None
    """The file next to this manifest with the contents of the shards' manifests; None in manifests of version 0.1."""
    seconds: float | None = None
    """Wall time of the process that closed the stage, s, without the work of interrupted processes; None if it was not measured."""

    @property
    def digest(self) -> str:
        """Return a digest of the content of all shards."""
        return digest({"stage": self.stage, "shards": [entry.digest for entry in self.shards]})

    @property
    def num_shards(self) -> int:
        """Return the number of shards."""
        return len(self.shards)


class ClosedStage(Protocol):
    """What `--plan` needs to know about a closed stage: its manifest, or what a run recorded about it."""

    @property
    def path(self) -> str:
        """Return the manifest's path relative to the store."""
        ...

    @property
    def digest(self) -> str:
        """Return the digest of the content of all shards."""
        ...

    @property
    def num_shards(self) -> int:
        """Return how many shards there are."""
        ...

    @property
    def rows(self) -> RowCounts:
        """Return the rows by reason."""
        ...


@dataclass(frozen=True, slots=True)
class NotedStage:
    """What a run recorded about a closed stage, so that its manifest, which lists every shard, need not be read for the digest."""

    path: str
    digest: str
    num_shards: int
    rows: RowCounts


def sealed(manifest: BaseModel) -> str:
    """Return a manifest's JSON, without its path, that contains a digest of itself."""
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
