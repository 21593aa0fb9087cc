"""A pipeline as a list of stages: keys, order, resuming, plan. No stage is referred to by name here.

A stage's key is the digest of its settings (except those that cannot change the result), its version and the content of
its inputs. A closed manifest under that key means that the work is done, by whatever process and in whatever run.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from corgi.flow import cluster, metrics, screen
from corgi.flow.aside import Aside
from corgi.flow.closing import run_and_close
from corgi.flow.context import Context, stage_key
from corgi.flow.earlier import Earlier
from corgi.flow.reasons import reasons, reasons_to_come
from corgi.flow.selection import Selection
from corgi.flow.stage import FollowingStage, Stage
from corgi.settings.errors import InputError, StorageError
from corgi.settings.recipe import Recipe
from corgi.storage.roots import is_object_store
from corgi.tables.generations import newest
from corgi.tables.manifest import ClosedStage, StageManifest
from corgi.tables.run import Run, StagePointer
from corgi.tables.store import Store


@dataclass(frozen=True)
class Step:
    """A stage in a plan: its key, and its manifest if it is done. The key is None while an input does not exist."""

    stage: Stage
    key: str | None
    done: ClosedStage | None
    shards_done: int = 0
    shards_all: int | None = None
    reasons: tuple[str, ...] = ()
    """Why it must be made again, if this run has finished it before."""


@dataclass
class Dag:
    """Stages in order, with one recipe and one store."""

    stages: Sequence[Stage]
    recipe: Recipe
    store: Store
    run: Run
    after_stage: Callable[[Run], None] = field(default=lambda run: None)
    aside_command: Callable[[str, bool], list[str]] | None = None
    ahead_command: Callable[[str], list[str]] | None = None

    def plan(self, selection: Selection) -> list[Step]:
        """Return what is done and what would run; nothing is started."""
        closed: dict[str, ClosedStage] = {}
        steps: list[Step] = []
        selected = {stage.name for stage in selection.of(self.stages)}
        pointers = self.run.facts["stages"]
        for stage in self.stages:
            missing = [name for name in stage.inputs if name not in closed]
            if missing:
                why = reasons_to_come(self.run, stage, self.recipe, missing)
                steps.append(Step(stage, None, None, reasons=tuple(why)))
                continue
            step = self._step(stage, closed, pointers.get(stage.name), stage.name in selected)
            if step.done is None and not self._is_wanted(stage, closed, selected, selection.force):
                continue
            if step.done is not None and not (selection.force and stage.name in selected):
                closed[stage.name] = step.done
            elif step.done is not None:
                step = Step(stage, step.key, None, reasons=("--force",))
            steps.append(step)
        return [step for step in steps if step.stage.name in selected]

    def execute(self, selection: Selection, say: Callable[[str], None]) -> int:
        """Run the selected stages that are not done; return the number of stages that ran.

        Raises:
            InputError: a stage that was not selected is needed and incomplete.
            StorageError: a stage returned without committing one of its shards.

        """
        ran = self._execute(selection, say)
        if not self.run.is_reported:
            self.report()
        return ran

    def _execute(self, selection: Selection, say: Callable[[str], None]) -> int:
        selected = {stage.name for stage in selection.of(self.stages)}
        metrics.note_waiting(selected)
        closed: dict[str, StageManifest] = {}
        beside: dict[str, tuple[Context, Aside]] = {}
        ran = 0
        with ExitStack() as asides:
            for stage in self.stages:
                for name in [name for name in stage.inputs if name in beside]:
                    closed[name] = self._joined(*beside.pop(name), say)
                if not self._has_inputs(stage, closed, selected):
                    continue
                with ExitStack() as locks:
                    context = self.context(stage, closed, selection.force and stage.name in selected, locks)
                    done = self.store.stage(stage.name, context.key)
                    if (
                        stage.name in selected
                        and (done is None or context.force)
                        and self._is_wanted(stage, closed, selected, selection.force)
                    ):
                        self._check_reads(stage, closed)
                        if ran == 0:
                            cluster.check_start(self.recipe, lambda: self.plan(selection))
                            self.store.storage.check()
                        ran += 1
                        aside = self._started(context, done, selected, say)
                        if aside is not None:
                            asides.callback(aside.stop)
                            beside[stage.name] = (context, aside)
                            continue
                        done = self._made(context, done, say, self._follower_of(context, closed, selected))
                    elif done is not None:
                        say(f"{stage.name}: done before")
                        self._record(stage, done)
                if done is not None:
                    closed[stage.name] = done
            for context, aside in beside.values():
                self._joined(context, aside, say)
        return ran

    def report(self) -> None:
        """Publish the run's own files, such as report.html, from the stages to which it points."""
        self.after_stage(self.run)
        self.run.note_reported()

    def make_alone(self, name: str, force: bool) -> None:
        """Run one stage with complete inputs and close it; the process that started this one writes run.json.

        Raises:
            InputError: one of its inputs is incomplete.

        """
        closed: dict[str, StageManifest] = {}
        for stage in self.stages:
            if not self._has_inputs(stage, closed, {name}):
                continue
            with ExitStack() as locks:
                context = self.context(stage, closed, force and stage.name == name, locks)
                if stage.name == name:
                    run_and_close(context)
                    return
                done = self.store.stage(stage.name, context.key)
            if done is not None:
                closed[stage.name] = done

    def _follower_of(
        self, context: Context, closed: dict[str, StageManifest], selected: set[str]
    ) -> FollowingStage | None:
        """Return the stage whose shards can be made while this stage's shards are being committed; None if there is none."""
        if self.ahead_command is None or context.force:
            return None
        there = {*closed, context.stage.name}
        return next(
            (
                stage
                for stage in self.stages
                if isinstance(stage, FollowingStage) and stage.partition == context.stage.name
                if stage.name in selected and there.issuperset(stage.inputs)
            ),
            None,
        )

    def _start_follower(
        self, stage: FollowingStage | None, say: Callable[[str], None], held: ExitStack
    ) -> Aside | None:
        """Start the process of a following stage, which ends when `held` is closed; None if the cluster has no room for it."""
        if stage is None or self.ahead_command is None:
            return None
        environment = stage.side_by_side(self.recipe)
        if environment is None:
            return None
        say(f"{stage.name}: follows {stage.partition}, shard by shard")
        beside = Aside(stage.name, self.ahead_command(stage.name), environment)
        held.callback(beside.stop)
        return beside

    def _has_inputs(self, stage: Stage, closed: dict[str, StageManifest], selected: set[str]) -> bool:
        missing = [name for name in stage.inputs if name not in closed]
        if missing and stage.name in selected:
            raise _incomplete(stage, missing[0])
        return not missing

    def _is_wanted(
        self, stage: Stage, closed: Mapping[str, ClosedStage], selected: set[str], force: bool
    ) -> bool:
        """Return whether a stage is needed: no selected stage reads it, or one that does is not done."""
        readers = [other for other in self.stages if stage.name in other.reads and other.name in selected]
        return not readers or any(
            force
            or not set(other.inputs) <= set(closed)
            or newest(self.store.storage, f"{other.name}/closed/{self._key(other, closed)}") is None
            for other in readers
        )

    def _check_reads(self, stage: Stage, closed: dict[str, StageManifest]) -> None:
        if missing := [name for name in stage.reads if name not in closed]:
            raise _incomplete(stage, missing[0])

    def _started(
        self, context: Context, before: StageManifest | None, selected: set[str], say: Callable[[str], None]
    ) -> Aside | None:
        """Start a stage in a separate process; None if nothing could run at the same time, or the cluster has no room."""
        stage = context.stage
        needing = self.following(stage)
        later = self.stages[list(self.stages).index(stage) + 1 :]
        if self.aside_command is None or isinstance(stage, FollowingStage):
            return None
        if not any(other.name in selected and other.name not in needing for other in later):
            return None
        environment = stage.side_by_side(self.recipe)
        if environment is None:
            return None
        say(f"{stage.name}: runs at the same time as later stages")
        metrics.note_state(stage.name, metrics.RUNS)
        if before is None:
            self.run.supersede(needing)
        return Aside(stage.name, self.aside_command(stage.name, context.force), environment)

    def _joined(self, context: Context, aside: Aside, say: Callable[[str], None]) -> StageManifest:
        """Wait for a concurrent stage and make the run point to it."""
        stage = context.stage
        aside.join()
        done = self.store.stage(stage.name, context.key)
        if done is None:
            raise StorageError(
                f"{stage.name} ended without closing its stage; its shards are safe; run the same command again"
            )
        self._record(stage, done)
        self.report()
        say(f"{stage.name}: {done.rows.summary}")
        return done

    def _made(
        self,
        context: Context,
        before: StageManifest | None,
        say: Callable[[str], None],
        follower: FollowingStage | None,
    ) -> StageManifest:
        """Run a stage, close it, and make the run point to it; a follower makes its shards at the same time."""
        stage = context.stage
        screen.current().begin(f"{stage.name}: runs")
        metrics.note_state(stage.name, metrics.RUNS)
        if before is None:
            self.run.supersede(self.following(stage))
        with ExitStack() as held:
            beside = self._start_follower(follower, say, held)
            done = run_and_close(context)
            self._record(stage, done)
            self.report()
            say(f"{stage.name}: {done.rows.summary}")
            if beside is not None:
                beside.wait()
        return done

    def _record(self, stage: Stage, done: StageManifest) -> None:
        """Make the run point to a finished stage."""
        self.run.record(stage.name, done)
        metrics.note_state(stage.name, metrics.DONE)
        metrics.note_rows(stage.name, done.rows)

    def following(self, stage: Stage) -> list[str]:
        """Return the names of a stage and of all stages that need it, directly or indirectly."""
        reached = [stage.name]
        for later in self.stages:
            if later.name not in reached and any(name in reached for name in later.inputs):
                reached.append(later.name)
        return reached

    def context(
        self,
        stage: Stage,
        closed: dict[str, StageManifest],
        force: bool = False,
        locks: ExitStack | None = None,
    ) -> Context:
        """Return the context of a stage with these complete inputs."""
        inputs = {name: closed[name] for name in stage.inputs}
        outside, parts = stage.fingerprint(self.recipe), stage.parts(self.recipe)
        key = stage_key(stage, self.recipe, inputs, outside, parts)
        held = locks or ExitStack()
        earlier = Earlier(self.run, stage.name, self.recipe, stage.settings)
        reads = {name: closed[name] for name in stage.reads if name in closed}
        return Context(
            stage, self.recipe, self.store, self.run, inputs, key, force, held, outside, parts, earlier, reads
        )

    def _key(self, stage: Stage, closed: Mapping[str, ClosedStage]) -> str:
        """Return the key of a stage with these complete inputs."""
        inputs = {name: closed[name] for name in stage.inputs}
        return stage_key(stage, self.recipe, inputs, stage.fingerprint(self.recipe), stage.parts(self.recipe))

    def _step(
        self,
        stage: Stage,
        closed: Mapping[str, ClosedStage],
        pointer: StagePointer | None,
        is_selected: bool,
    ) -> Step:
        """Return a stage's step; reasons and the number of finished shards are only determined if the stage is selected.

        The manifest of a finished stage is read only if the run has not recorded it; so are those of the inputs of an unfinished one.
        """
        key = self._key(stage, closed)
        done = self.run.noted(pointer, stage.name, key) or self.store.stage(stage.name, key)
        if done is not None:
            return Step(stage, key, done, done.num_shards, done.num_shards)
        if not is_selected:
            return Step(stage, key, None)
        whole = {
            name: found if isinstance(found, StageManifest) else self.store.read_stage(found.path)
            for name, found in closed.items()
            if name in (*stage.inputs, *stage.reads)
        }
        context = self.context(stage, whole)
        why = tuple(reasons(self.run, context))
        if stage.partition is None:
            return Step(stage, context.key, None, reasons=why)
        tasks = context.partitioned()
        made = len(tasks) - len(context.pending(tasks))
        return Step(stage, context.key, None, made, len(tasks), why)


def open_dag(
    stages: Sequence[Stage], recipe: Recipe, after_stage: Callable[[Run], None] | None = None
) -> Dag:
    """Return the DAG of a recipe's run under the recipe's root."""
    scratch = Path(recipe.scratch or ("runs" if is_object_store(recipe.root) else recipe.root)).absolute()
    store = Store(recipe.root, scratch / "cache")
    run = Run(f"{store.location}/{recipe.name}", store, scratch)
    return Dag(stages, recipe, run.store, run, after_stage or (lambda _: None))


def _incomplete(stage: Stage, missing: str) -> InputError:
    return InputError(
        f"{stage.name} needs {missing}, which is not complete; nothing is lost; run without --only and --from"
    )
