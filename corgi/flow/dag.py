"""A pipeline as a list of stages: keys, order, resume, plan. It knows no stage by name.

A stage's key is the digest of its settings (without the neutral ones), its version and the content of
its inputs. A closed manifest under that key means the work is done, whoever did it and in whichever run.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corgi.flow.code import code_digest, git_commit
from corgi.settings.errors import InputError, SettingsError, StorageError
from corgi.settings.section import Section, digest
from corgi.tables.manifest import RowCounts, ShardEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store


@dataclass(frozen=True)
class Stage:
    """One step from committed tables to committed tables.

    `body` and `fingerprint` are `module:function`, imported only when needed: finished work must be
    recognised without importing Ray or torch. `version` is raised by hand when equal input would give other output.
    `cost` names a function of the recipe that returns lines for --plan, or refuses what would not fit.
    """

    name: str
    body: str
    inputs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    version: int = 1
    partition: str | None = None
    fingerprint: str | None = None
    cost: str | None = None

    def costs(self, recipe: Any) -> list[str]:
        """Return what --plan says of the stage's needs."""
        return _resolve(self.cost)(recipe) if self.cost else []


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
    outside: Any = None

    def shards(self, stage: str) -> list[ShardManifest]:
        """Return an input's shard manifests in order."""
        return self.store.shards(self.inputs[stage])

    def task(
        self,
        shard: str,
        payload: dict[str, Any] | None = None,
        inputs: dict[str, Sequence[ShardManifest]] | None = None,
    ) -> ShardTask:
        """Return the task of one shard; `inputs` defaults to every shard of every input."""
        chosen = {name: self.shards(name) for name in self.inputs} if inputs is None else inputs
        meaning = {
            "stage": self.stage.name,
            "version": self.stage.version,
            "settings": _meaning(self.stage, self.recipe),
            "shard": shard,
            "inputs": {name: [m.digest for m in manifests] for name, manifests in chosen.items()},
            "payload": payload or {},
        }
        if self.outside and self.inputs:  # a stage without inputs names its sources in the payload
            meaning["outside"] = self.outside
        return ShardTask(
            root=str(self.store.root.parent),
            stage=self.stage.name,
            shard=shard,
            key=digest(meaning),
            version=self.stage.version,
            code=code_digest(),
            settings={
                name: getattr(self.recipe, name).model_dump(mode="json") for name in self.stage.settings
            },
            inputs={name: tuple(m.path for m in manifests) for name, manifests in chosen.items()},
            payload=payload or {},
        )

    def partitioned(self) -> list[ShardTask]:
        """Return one task a shard of the partitioning input; every other input is read whole."""
        name = self.stage.partition
        if name is None:
            return [self.task("all")]
        whole = {other: self.shards(other) for other in self.inputs if not self._is_aligned(other)}
        aligned = {
            other: {m.shard: m for m in self.shards(other)}
            for other in self.inputs
            if self._is_aligned(other)
        }
        return [
            self.task(
                m.shard,
                inputs={**whole, **{other: [by_shard[m.shard]] for other, by_shard in aligned.items()}},
            )
            for m in self.shards(name)
        ]

    def pending(self, tasks: Iterable[ShardTask]) -> list[ShardTask]:
        """Return the tasks whose shard is not committed yet (all of them under --force)."""
        return [task for task in tasks if self.force or self.store.shard(task.stage, task.key) is None]

    def _is_aligned(self, stage: str) -> bool:
        assert self.stage.partition is not None
        wanted = [entry.shard for entry in self.inputs[self.stage.partition].shards]
        return [entry.shard for entry in self.inputs[stage].shards] == wanted


@dataclass
class Selection:
    """Which stages a command runs; the others must be complete already."""

    first: str | None = None
    last: str | None = None
    only: str | None = None
    force: bool = False

    def of(self, stages: Sequence[Stage]) -> list[Stage]:
        """Return the selected stages in order.

        Raises:
            SettingsError: a name is not one of the stages.

        """
        names = [stage.name for stage in stages]
        for name in (self.first, self.last, self.only):
            if name is not None and name not in names:
                raise SettingsError(
                    f"no stage {name!r}; nothing was started; the stages are {', '.join(names)}"
                )
        if self.only is not None:
            return [stage for stage in stages if stage.name == self.only]
        start = names.index(self.first) if self.first else 0
        end = names.index(self.last) + 1 if self.last else len(names)
        if start >= end:
            raise SettingsError(
                f"--from {self.first} lies after --until {self.last}; nothing was started; the order is {', '.join(names)}"
            )
        return list(stages[start:end])


@dataclass(frozen=True)
class Step:
    """A stage as a plan sees it: its key and whether it is done; key None when an input is not there yet."""

    stage: Stage
    key: str | None
    done: StageManifest | None
    shards_done: int = 0
    shards_all: int | None = None


@dataclass
class Dag:
    """Stages in order, over one recipe and one store."""

    stages: Sequence[Stage]
    recipe: Any
    store: Store
    run: Run
    after_stage: Callable[[Run], None] = field(default=lambda run: None)

    def plan(self, selection: Selection) -> list[Step]:
        """Return what is done and what would run; starts nothing."""
        closed: dict[str, StageManifest] = {}
        steps = []
        selected = {stage.name for stage in selection.of(self.stages)}
        for stage in self.stages:
            if any(name not in closed for name in stage.inputs):
                steps.append(Step(stage, None, None))
                continue
            step = self._step(stage, closed)
            if step.done is not None and not (selection.force and stage.name in selected):
                closed[stage.name] = step.done
            elif step.done is not None:
                step = Step(stage, step.key, None)
            steps.append(step)
        return [step for step in steps if step.stage.name in selected]

    def execute(self, selection: Selection, say: Callable[[str], None]) -> int:
        """Run the selected stages that are not done; return how many ran.

        Raises:
            InputError: a stage that was not selected is needed and not complete.
            StorageError: a body returned without committing one of its shards.

        """
        selected = {stage.name for stage in selection.of(self.stages)}
        closed: dict[str, StageManifest] = {}
        ran = 0
        for stage in self.stages:
            missing = [name for name in stage.inputs if name not in closed]
            if missing:
                if stage.name in selected:
                    raise InputError(
                        f"{stage.name} needs {missing[0]}, which is not complete; nothing is lost; run without --only and --from"
                    )
                continue
            context = self._context(stage, closed, selection.force and stage.name in selected)
            done = self.store.stage(stage.name, context.key)
            if stage.name in selected and (done is None or context.force):
                say(f"{stage.name}: runs")
                if done is None:
                    self.run.forget(self._from(stage))
                done = self._close(context, _resolve(stage.body)(context))
                ran += 1
                self.run.record(stage.name, done)
                self.after_stage(self.run)
                say(f"{stage.name}: {_summary(done)}")
            elif done is not None:
                say(f"{stage.name}: done before")
                self.run.record(stage.name, done)
            if done is not None:
                closed[stage.name] = done
        return ran

    def _from(self, stage: Stage) -> list[str]:
        """Return a stage's name and those of the stages that need it, directly or not."""
        reached = [stage.name]
        for later in self.stages:
            if later.name not in reached and any(name in reached for name in later.inputs):
                reached.append(later.name)
        return reached

    def _context(self, stage: Stage, closed: dict[str, StageManifest], force: bool = False) -> Context:
        inputs = {name: closed[name] for name in stage.inputs}
        outside = _resolve(stage.fingerprint)(self.recipe) if stage.fingerprint else None
        key = _stage_key(stage, self.recipe, inputs, outside)
        return Context(stage, self.recipe, self.store, self.run, inputs, key, force, outside)

    def _step(self, stage: Stage, closed: dict[str, StageManifest]) -> Step:
        context = self._context(stage, closed)
        done = self.store.stage(stage.name, context.key)
        if done is not None or stage.partition is None:
            return Step(
                stage, context.key, done, len(done.shards) if done else 0, len(done.shards) if done else None
            )
        tasks = context.partitioned()
        return Step(stage, context.key, None, len(tasks) - len(context.pending(tasks)), len(tasks))

    def _close(self, context: Context, tasks: Sequence[ShardTask]) -> StageManifest:
        entries, rows = [], RowCounts(rows_in=0, kept=0)
        for task in tasks:
            shard = self.store.shard(task.stage, task.key)
            if shard is None:
                raise StorageError(
                    f"{task.stage} ended without committing shard {task.shard}; other shards are safe; run the same command again"
                )
            entries.append(ShardEntry(shard=shard.shard, path=shard.path, digest=shard.digest))
            rows = rows + shard.rows
        manifest = StageManifest(
            stage=context.stage.name,
            key=context.key,
            version=context.stage.version,
            code=code_digest(),
            commit=git_commit(),
            settings={
                name: getattr(self.recipe, name).model_dump(mode="json") for name in context.stage.settings
            },
            inputs={name: found.path for name, found in context.inputs.items()},
            shards=tuple(entries),
            rows=rows,
        )
        return self.store.close(manifest)


def open_dag(stages: Sequence[Stage], recipe: Any, after_stage: Callable[[Run], None] | None = None) -> Dag:
    """Return the DAG of a recipe's run under the recipe's root."""
    run = Run(Path(recipe.root).absolute() / recipe.name, Store(recipe.root))
    return Dag(stages, recipe, run.store, run, after_stage or (lambda _: None))


def _meaning(stage: Stage, recipe: Any) -> dict[str, Any]:
    sections: dict[str, Section] = {name: getattr(recipe, name) for name in stage.settings}
    return {name: section.meaning() for name, section in sections.items()}


def _stage_key(stage: Stage, recipe: Any, inputs: dict[str, StageManifest], outside: Any) -> str:
    return digest(
        {
            "stage": stage.name,
            "version": stage.version,
            "settings": _meaning(stage, recipe),
            "inputs": {name: found.digest for name, found in inputs.items()},
            "outside": outside,
        }
    )


def _resolve(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _summary(manifest: StageManifest) -> str:
    rows = manifest.rows
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rows.rejected.items()))
    return f"{rows.rows_in} in = {rows.kept} kept + {sum(rows.rejected.values())} rejected" + (
        f" ({reasons})" if reasons else ""
    )
