"""A stage and what its body is given: settings, inputs, names of its shards, a scratch folder of its own."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from corgi.flow.code import code_digest
from corgi.flow.earlier import Earlier
from corgi.flow.locks import held
from corgi.settings.section import Section, digest
from corgi.tables.manifest import ShardEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store


@dataclass(frozen=True)
class Stage:
    """One step from committed tables to committed tables.

    `body`, `fingerprint` and `amend` are `module:function`, imported only when needed: finished work must be
    recognised without importing Ray or torch. `version` is raised by hand when equal input would give other output. `parts`, a
    `module:function` of the recipe, returns a version for each part of the stage that the recipe touches, raised when only
    what touches that part would come out otherwise: 0 to begin with, which no key holds (docs/decisions/0007).
    `amend(context, tasks)` makes the next generation of committed shards from the one before (corgi/flow/amend.py).
    `along` names the stage with which this one runs when only that one is asked for. `aside`, a `module:function` of the
    recipe, is given where a stage may run beside later ones that do not need it: it returns the environment of the
    process that makes it, or None where the cluster has no room for both. `follow`, a `module:function` of (context, arriving),
    makes shards while those of `partition` are still being made, each as soon as its own input is there; `room` then says, as
    `aside` does, whether the cluster holds both.
    """

    name: str
    body: str
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    version: int = 1
    partition: str | None = None
    fingerprint: str | None = None
    parts: str | None = None
    amend: str | None = None
    cost: str | None = None
    along: str | None = None
    aside: str | None = None
    follow: str | None = None
    room: str | None = None

    def cost_lines(self, recipe: Any) -> list[str]:
        """Return what a plan prints of the stage's cost; nothing when it has no `cost`, a `module:function` of the recipe."""
        return resolve(self.cost)(recipe) if self.cost else []


@dataclass(frozen=True)
class Context:
    """What a stage's body is given: its settings, its inputs' manifests, and how to name its shards."""

    stage: Stage
    recipe: Any
    store: Store
    run: Run
    inputs: dict[str, StageManifest]
    key: str
    force: bool = False
    locks: ExitStack = field(default_factory=ExitStack)
    outside: Any = None
    parts: dict[str, int] = field(default_factory=dict)
    earlier: Earlier | None = None

    def shards(self, stage: str) -> list[ShardManifest]:
        """Return an input's shard manifests in order."""
        return self.store.shards(self.inputs[stage])

    def entries(self, stage: str) -> tuple[ShardEntry, ...]:
        """Return an input's shards in order as its stage lists them: names, paths and digests; nothing is opened."""
        return self.inputs[stage].shards

    def task(
        self,
        shard: str,
        payload: dict[str, Any] | None = None,
        inputs: dict[str, Sequence[ShardManifest | ShardEntry]] | None = None,
    ) -> ShardTask:
        """Return the task of one shard; `inputs` defaults to every shard of every input."""
        chosen = {name: self.entries(name) for name in self.inputs} if inputs is None else inputs
        meaning = {
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
            payload=payload or {},
            earlier=self.earlier.of(shard) if self.earlier else (),
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the stage's sections of the recipe, neutral settings included, as JSON."""
        return {name: getattr(self.recipe, name).model_dump(mode="json") for name in self.stage.settings}

    def partitioned(self) -> list[ShardTask]:
        """Return one task a shard of the partitioning input; every other input is read whole."""
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
        """Return the scratch folder of a long task on a disk, this run's alone until its stage ends.

        It survives kills, its name is the task's key: checkpoints in it are found again by whoever makes that shard.

        Raises:
            ClusterError: another run is at work in it; the line names it.

        """
        folder = self.run.scratch_root / "store" / task.stage / task.key / "work"
        self.locks.enter_context(held(folder, f"{task.stage} of run {self.run.name}"))
        return folder

    @cached_property
    def _meaning(self) -> dict[str, Any]:
        return meaning_of(self.stage, self.recipe)

    def _is_aligned(self, stage: str) -> bool:
        assert self.stage.partition is not None
        wanted = [entry.shard for entry in self.entries(self.stage.partition)]
        return [entry.shard for entry in self.entries(stage)] == wanted


def meaning_of(stage: Stage, recipe: Section) -> dict[str, Any]:
    """Return what a stage's keys hold of its settings: what can change its result and was asked for."""
    return recipe.meaning(stage.settings)


def outside_of(stage: Stage, recipe: Any) -> Any:
    """Return what a stage depends on beside settings and inputs: files that the recipe names, by content."""
    return resolve(stage.fingerprint)(recipe) if stage.fingerprint else None


def parts_of(stage: Stage, recipe: Any) -> dict[str, int]:
    """Return the versions of a stage's parts that a recipe touches."""
    return resolve(stage.parts)(recipe) if stage.parts else {}


def version_of(stage: Stage, parts: dict[str, int]) -> Any:
    """Return a stage's version as keys hold it: beside its own the raised ones of its parts, where there are any."""
    raised = {part: number for part, number in parts.items() if number}
    return [stage.version, raised] if raised else stage.version


def stage_key(
    stage: Stage, recipe: Any, inputs: dict[str, StageManifest], outside: Any, parts: dict[str, int]
) -> str:
    """Return the key of a stage over its inputs."""
    return digest(
        {
            "stage": stage.name,
            "version": version_of(stage, parts),
            "settings": meaning_of(stage, recipe),
            "inputs": {name: found.digest for name, found in inputs.items()},
            "outside": outside,
        }
    )


def resolve(path: str) -> Callable[..., Any]:
    """Return what `module:function` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
