"""What a stage receives when it runs: settings, inputs, names of its shards, and a scratch folder."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from corgi.flow.code import code_digest
from corgi.flow.earlier import Earlier
from corgi.flow.locks import held
from corgi.flow.stage import Fingerprint, Stage
from corgi.settings.errors import StorageError
from corgi.settings.recipe import Recipe
from corgi.settings.section import digest
from corgi.tables.manifest import ClosedStage, ShardEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store


@dataclass(frozen=True)
class Context:
    """What a stage receives: its settings, its inputs' manifests, and how to name its shards."""

    stage: Stage
    recipe: Recipe
    store: Store
    run: Run
    inputs: dict[str, StageManifest]
    key: str
    force: bool = False
    locks: ExitStack = field(default_factory=ExitStack)
    outside: Fingerprint = None
    parts: dict[str, int] = field(default_factory=dict[str, int])
    earlier: Earlier | None = None
    reads: dict[str, StageManifest] = field(default_factory=dict[str, StageManifest])

    def listed(self, stage: str) -> list[ListedShard]:
        """Return the contents of the shard manifests, in order, of an input or of another stage that the stage reads, from its index."""
        return self.store.listed(self._manifest(stage))

    def entries(self, stage: str) -> tuple[ShardEntry, ...]:
        """Return the names, paths and digests of the shards of such a stage, in order, without opening their manifests."""
        return self._manifest(stage).shards

    def _manifest(self, stage: str) -> StageManifest:
        return self.inputs[stage] if stage in self.inputs else self.reads[stage]

    def task(
        self,
        shard: str,
        payload: Mapping[str, object] | None = None,
        inputs: Mapping[str, Sequence[ShardManifest | ShardEntry | ListedShard]] | None = None,
    ) -> ShardTask:
        """Return the task of one shard; `inputs` defaults to every shard of every input."""
        every = {name: self.entries(name) for name in self.inputs}
        chosen: Mapping[str, Sequence[ShardManifest | ShardEntry | ListedShard]] = (
            every if inputs is None else inputs
        )
        meaning: dict[str, object] = {
            "stage": self.stage.name,
            "version": version_of(self.stage, self.parts),
            "settings": self._meaning,
            "shard": shard,
            "inputs": {name: [m.digest for m in manifests] for name, manifests in chosen.items()},
            "payload": payload or {},
        }
        if self.outside and self.inputs:  # a stage without inputs names its sources in the payload
            meaning["outside"] = self.outside
        return ShardTask(
            root=self.store.location,
            stage=self.stage.name,
            shard=shard,
            key=digest(meaning),
            version=self.stage.version,
            code=code_digest(),
            settings=self.settings,
            inputs={name: tuple(m.path for m in manifests) for name, manifests in chosen.items()},
            payload=dict(payload or {}),
            earlier=self.earlier.of(shard) if self.earlier else (),
        )

    def taken_over(self) -> list[StageManifest]:
        """Return the closed stages from which this one may take over equal rows; none under --force.

        Their settings, versions and files outside the store are the same, and so are all inputs except the partitioning one.
        """
        if self.force or self.earlier is None:
            return []
        found = self.earlier.alike(self.stage.version, self.parts, self.outside)
        return [manifest for manifest in found if manifest.key != self.key and self._has_the_same(manifest)]

    def _has_the_same(self, manifest: StageManifest) -> bool:
        names = [name for name in self.inputs if name != self.stage.partition]
        try:
            return all(
                self.store.read_stage(manifest.inputs[name]).digest == self.inputs[name].digest
                for name in names
            )
        except (KeyError, StorageError):  # if it cannot be read, it is not known to be the same
            return False

    @cached_property
    def settings(self) -> dict[str, object]:
        """Return the stage's sections of the recipe, including settings that are not part of the key, as JSON."""
        return {name: getattr(self.recipe, name).model_dump(mode="json") for name in self.stage.settings}

    def partitioned(self) -> list[ShardTask]:
        """Return one task per shard of the partitioning input; every other input is read completely."""
        name = self.stage.partition
        if name is None:
            return [self.task("all")]
        whole = {other: self.entries(other) for other in self.inputs if not self._is_aligned(other)}
        aligned = {
            other: {m.shard: m for m in self.entries(other)}
            for other in self.inputs
            if self._is_aligned(other)
        }
        return [
            self.task(
                m.shard,
                inputs={**whole, **{other: [by_shard[m.shard]] for other, by_shard in aligned.items()}},
            )
            for m in self.entries(name)
        ]

    def pending(self, tasks: Iterable[ShardTask]) -> list[ShardTask]:
        """Return the tasks whose shard is not committed yet (all of them under --force)."""
        wanted = list(tasks)
        if self.force:
            return wanted
        done = self.store.committed(self.stage.name, [task.key for task in wanted])
        return [task for task in wanted if task.key not in done]

    def work_folder(self, task: ShardTask) -> Path:
        """Return the scratch folder of a long task on a disk; no other run may use it until the stage ends.

        It is named after the task's key, so that the next process that makes the shard finds the checkpoints in it.

        Raises:
            ClusterError: another run is using it; the message names that run.

        """
        folder = self.run.scratch_root / "store" / task.stage / task.key / "work"
        self.locks.enter_context(held(folder, f"{task.stage} of run {self.run.name}"))
        return folder

    @cached_property
    def _meaning(self) -> dict[str, object]:
        return meaning_of(self.stage, self.recipe)

    def _is_aligned(self, stage: str) -> bool:
        assert self.stage.partition is not None
        wanted = [entry.shard for entry in self.entries(self.stage.partition)]
        return [entry.shard for entry in self.entries(stage)] == wanted


def meaning_of(stage: Stage, recipe: Recipe) -> dict[str, object]:
    """Return the part of a stage's settings on which its keys depend: the settings that can change its result."""
    return recipe.meaning(stage.settings)


def version_of(stage: Stage, parts: dict[str, int]) -> int | list[int | dict[str, int]]:
    """Return a stage's version for its keys: its own version, with the versions of its parts if any is above 0."""
    raised = {part: number for part, number in parts.items() if number}
    return [stage.version, raised] if raised else stage.version


def stage_key(
    stage: Stage,
    recipe: Recipe,
    inputs: Mapping[str, ClosedStage],
    outside: Fingerprint,
    parts: dict[str, int],
) -> str:
    """Return the key of a stage with its inputs."""
    return digest(
        {
            "stage": stage.name,
            "version": version_of(stage, parts),
            "settings": meaning_of(stage, recipe),
            "inputs": {name: found.digest for name, found in inputs.items()},
            "outside": outside,
        }
    )
