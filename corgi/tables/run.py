"""One run: the folder whose run.json points to the run's stage manifests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

from corgi.settings.errors import InputError, StorageError
from corgi.storage.errors import storage_full
from corgi.storage.roots import is_object_store, open_storage
from corgi.tables.embedded import EmbeddedShard, embedded_set
from corgi.tables.generations import newest
from corgi.tables.manifest import NotedStage, RowCounts, ShardManifest, StageManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store

_FORMER: Final = "former"


class StagePointer(TypedDict):
    """A run's pointer to a stage: its manifest's path, key and digest, its number of shards and its rows by reason."""

    path: str
    key: str
    digest: str
    shards: NotRequired[int]
    rows: NotRequired[dict[str, Any]]


class RunFacts(TypedDict):
    """The contents of run.json."""

    stages: dict[str, StagePointer]
    former: dict[str, StagePointer]
    """Stages that are about to be replaced."""
    recipe: NotRequired[dict[str, Any]]
    order: NotRequired[list[str]]
    headings: NotRequired[dict[str, list[str]]]
    """Title and introduction of each stage's section of the report."""
    reported: NotRequired[dict[str, str]]
    """Path of each stage's manifest when report.html was last written."""
    files: NotRequired[dict[str, Any]]
    """Values computed from the bytes of large files, such as the sha256 of lists (corgi/storage/file_memory.py)."""
    commands: NotRequired[dict[str, str]]
    """The last arguments of each command that made something from this run."""
    dollars: NotRequired[dict[str, Any]]
    """The cost of each stage, with the path of the manifest whose time was counted (corgi/budget/spending.py)."""
    code: NotRequired[str]
    commit: NotRequired[str | None]


def run_facts(data: bytes) -> RunFacts:
    """Return the contents of run.json, with empty `stages` and `former` if it does not have them.

    Raises:
        ValueError, TypeError: it is damaged.

    """
    read: Any = json.loads(data)
    facts: Any = {"stages": {}, _FORMER: {}, **read}
    return facts


class Run:
    """A named run under a root; it owns no tables, but points to committed ones."""

    def __init__(self, folder: str | Path, store: Store, scratch: Path | None = None) -> None:
        """Open a run's folder or URL, which is created when something is recorded.

        `scratch` is the folder on a disk for uncommitted files, by default the root. `folder` of this object is always on a disk:
        the run is locked there and writes temporary files there; with a root on a disk it is the run's own folder.
        """
        self.name = str(folder).rstrip("/").rpartition("/")[2]
        self.storage = open_storage(folder)
        self.store = store
        remote = is_object_store(folder)
        self.scratch_root = scratch or (Path("runs").absolute() if remote else Path(folder).parent)
        self.folder = self.scratch_root / self.name if remote else Path(folder)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run by its folder or URL, such as runs/openmoji or s3://bucket/runs/openmoji.

        Raises:
            InputError: there is no run in that folder.

        """
        location = str(folder).rstrip("/") if is_object_store(folder) else str(Path(folder).absolute())
        run = cls(location, Store(location.rpartition("/")[0] or "/"))
        if not run.exists:
            raise InputError(
                f"{folder} holds no run (no run.json); nothing was changed; name a run's folder such as runs/openmoji"
            )
        return run

    @property
    def exists(self) -> bool:
        """Return whether anything was recorded about this run."""
        return "run.json" in self.storage.names("")

    @property
    def facts(self) -> RunFacts:
        """Return run.json: the resolved recipe and, by stage, the manifest's path, key and digest."""
        try:
            return run_facts(self.storage.read("run.json"))
        except FileNotFoundError:
            return run_facts(b"{}")
        except (ValueError, TypeError):
            raise StorageError(
                f"{self.storage.locate('run.json')} is damaged; tables and models are safe; remove it and run the same command"
            ) from None
        except OSError as error:
            storage_full(error, self.storage.locate("run.json"))

    def note(self, **values: object) -> None:
        """Set top-level values of run.json, such as the resolved recipe."""
        facts = self.facts
        if {**facts, **values} != facts:
            self._write({**facts, **values})

    def note_reported(self) -> None:
        """Record that the run's own files, such as report.html, were made from the stages that it points to now."""
        self.note(reported=self._pointed_at())

    @property
    def is_reported(self) -> bool:
        """Return whether the run's own files were made from the stages that it points to; true if it points to none."""
        pointed_at = self._pointed_at()
        return not pointed_at or self.facts.get("reported") == pointed_at

    def _pointed_at(self) -> dict[str, str]:
        return {stage: entry["path"] for stage, entry in self.facts["stages"].items()}

    def record(self, stage: str, manifest: StageManifest) -> None:
        """Make the run point to a stage's manifest, and remove the stage from the former ones."""
        facts = self.facts
        entry = {"path": manifest.path, "key": manifest.key, "digest": manifest.digest}
        entry |= {"shards": manifest.num_shards, "rows": manifest.rows.model_dump(mode="json")}
        former = {name: told for name, told in facts[_FORMER].items() if name != stage}
        if facts["stages"].get(stage) != entry or former != facts[_FORMER]:
            self._write({**facts, "stages": {**facts["stages"], stage: entry}, _FORMER: former})

    def noted(self, pointer: StagePointer | None, stage: str, key: str) -> NotedStage | None:
        """Return what a pointer in run.json records about a stage; None unless it points to the newest manifest under this key and is complete."""
        if pointer is None or pointer["key"] != key or "shards" not in pointer or "rows" not in pointer:
            return None
        if pointer["path"] != newest(self.store.storage, f"{stage}/closed/{key}"):
            return None
        rows = RowCounts.model_validate(pointer["rows"])
        return NotedStage(pointer["path"], pointer["digest"], pointer["shards"], rows)

    def supersede(self, stages: Sequence[str]) -> None:
        """Stop pointing to stages whose results are about to be replaced, so that a run never mixes two recipes.

        They are former stages until new ones are recorded: equal content in them is reused, and `--gc` keeps it.
        """
        facts = self.facts
        leaving = {name: entry for name, entry in facts["stages"].items() if name in stages}
        self._keep(facts, stages, {**facts[_FORMER], **leaving})

    def forget(self, stages: Sequence[str]) -> None:
        """Stop pointing to stages permanently."""
        facts = self.facts
        self._keep(
            facts, stages, {name: entry for name, entry in facts[_FORMER].items() if name not in stages}
        )

    def former(self, stage: str) -> StageManifest | None:
        """Return the run's last result of a stage, whether or not it is about to be replaced."""
        facts = self.facts
        entry = facts["stages"].get(stage) or facts[_FORMER].get(stage)
        return None if entry is None else self.store.stage(stage, entry["key"])

    def _keep(self, facts: RunFacts, leaving: Sequence[str], former: dict[str, StagePointer]) -> None:
        kept = {name: entry for name, entry in facts["stages"].items() if name not in leaving}
        if kept != facts["stages"] or former != facts[_FORMER]:
            self._write({**facts, "stages": kept, _FORMER: former})

    def stages(self) -> dict[str, StageManifest]:
        """Return the stages to which this run points, in the order in which they were recorded."""
        pointers = self.facts["stages"]
        found = self.store.each_of(pointers.items(), lambda of: self.store.stage(of[0], of[1]["key"]))
        return {name: stage for name, stage in zip(pointers, found, strict=True) if stage is not None}

    def shards(self, stage: str) -> list[ShardManifest]:
        """Return the shard manifests of one stage of this run; only for stages with few shards, since each manifest is opened.

        Raises:
            InputError: the run has not completed that stage.

        """
        return self.store.shards(self._complete(stage))

    def listed(self, stage: str) -> list[ListedShard]:
        """Return the contents of the shard manifests of one stage of this run, from the stage's index.

        Raises:
            InputError: the run has not completed that stage.

        """
        return self.store.listed(self._complete(stage))

    def _complete(self, stage: str) -> StageManifest:
        manifest = self.stages().get(stage)
        if manifest is None:
            raise InputError(
                f"run {self.name} has no complete stage {stage}; nothing was changed; run pipelines/full.py first"
            )
        return manifest

    def embedded(self) -> list[EmbeddedShard]:
        """Return the shards of the embedded and curated set.

        Raises:
            InputError: the run has not completed download, embed and curate.

        """
        return embedded_set(self.store, {name: self.listed(name) for name in ("download", "embed", "curate")})

    def publish(self, name: str, data: bytes) -> None:
        """Write a file next to run.json, such as report.html, atomically."""
        self.storage.replace(name, data)

    def published(self, name: str) -> str | None:
        """Return the path or URL of a file next to run.json; None if there is no such file."""
        folder, _, last = name.rpartition("/")
        return self.storage.locate(name) if last in self.storage.names(folder) else None

    def _write(self, facts: Mapping[str, object]) -> None:
        self.storage.replace("run.json", (json.dumps(facts, indent=1) + "\n").encode())
