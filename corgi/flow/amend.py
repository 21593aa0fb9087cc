"""New versions of committed shards: rows fetched again, rows taken down. Only the shards concerned are redone."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyarrow has no types

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from corgi.flow.closing import close
from corgi.flow.context import Context
from corgi.flow.dag import Dag
from corgi.flow.stage import RevisableStage, Stage
from corgi.settings.errors import InputError, SettingsError
from corgi.tables.garbage import Contents, published, readable_shards, referring_stages
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask
from corgi.tables.taken_down import TakenDown, take_down

Say = Callable[[str], None]
_UID, _HASH = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


def reasons_of(text: str) -> tuple[str, ...]:
    """Return the reasons in `reason=timeout,dns`.

    Raises:
        SettingsError: it does not have that form, or names an unknown reason.

    """
    key, _, names = text.partition("=")
    chosen = tuple(name for name in names.split(",") if name)
    wrong = [name for name in chosen if name not in list(Reason)]
    if key != "reason" or not chosen or wrong:
        told = f"no reason {wrong[0]!r}" if wrong else f"{text!r} is not reason=NAME,NAME"
        raise SettingsError(
            f"--retry-failed: {told}; nothing was started; the reasons are {', '.join(Reason)}"
        )
    return chosen


def retry_failed(dag: Dag, reasons: Sequence[str], say: Say) -> int:
    """Publish the next version of every shard with rows rejected for these reasons; return the number of shards.

    A shard whose next version an interrupted retry has already published is not fetched again.

    Raises:
        InputError: no stage that can retry is complete.

    """
    retried, able = 0, False
    for stage, context, done in _closed(dag):
        if not isinstance(stage, RevisableStage) or not stage.inputs:
            continue
        able = True
        tasks = context.partitioned()
        newest = dag.store.committed(stage.name, [task.key for task in tasks])
        wanted: list[ShardTask] = []
        renewed = False
        for task, entry in zip(tasks, done.shards, strict=True):
            if newest[task.key] != entry.path:
                renewed = True
            elif set(reasons) & set(dag.store.read_shard(entry.path).rows.rejected):
                wanted.append(_amending(task, {"before": entry.path, "retry": list(reasons)}))
        if wanted:
            say(
                f"{stage.name}: {len(wanted)} of {len(tasks)} shards hold rows rejected for {', '.join(reasons)}"
            )
            stage.revise(context, wanted)
        if wanted or renewed:
            dag.run.record(stage.name, close(context, tasks))
        retried += len(wanted)
    if not able:
        raise InputError(
            "--retry-failed: no stage with rows to retry is complete; nothing is lost; run the recipe first"
        )
    return retried


def read_names(path: Path, canonical: Callable[[str], str]) -> TakenDown:
    """Return the take-down list in a file: one uid, sha256 or URL per line; empty lines and # comments are skipped.

    Raises:
        InputError: the file cannot be read, is empty, or holds a line that is none of these.

    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"--take-down: {path} cannot be read ({error}); nothing was changed; name a text file"
        ) from error
    names = [line for line in lines if line and not line.startswith("#")]
    wrong = [n for n in names if not (_UID.fullmatch(n) or _HASH.fullmatch(n) or "://" in n)]
    if wrong or not names:
        told = f"{wrong[0]!r} is neither a uid, a sha256 nor a URL" if wrong else "it names nothing"
        raise InputError(f"--take-down: {path}: {told}; nothing was changed; one uid, sha256 or URL a line")
    return TakenDown(
        uids=frozenset(n for n in names if _UID.fullmatch(n)),
        hashes=frozenset(n for n in names if _HASH.fullmatch(n)),
        urls=frozenset(canonical(n) for n in names if "://" in n),
    )


def take_down_rows(dag: Dag, asked: TakenDown, say: Say) -> None:
    """Remove rows from every table under the root, for good; report what had used them.

    The list is published first, then the stages that fetch are rewritten without those rows, then every other generation
    that holds one goes: what was made from it is made again by the next run. Stopped anywhere, the same command goes on.
    """
    known = asked | _uids_of(dag, asked)
    total = take_down(dag.store.storage, known)
    closed: dict[str, StageManifest] = {}
    old = dag.run.stages()
    for stage in dag.stages:
        if not isinstance(stage, RevisableStage) or stage.name not in old:
            continue
        if not set(stage.inputs) <= set(closed):
            continue
        closed[stage.name] = _rewritten(dag, stage, closed, old[stage.name], total, say)
    gone, models = _sweep(dag, total)
    touched = [stage for stage in dag.stages if stage.name in old and stage.name not in closed]
    dag.run.forget([stage.name for stage in touched if _is_stale(dag, old[stage.name])])
    say(f"taken down: {len(total.uids)} pictures in all under this root; {gone} shard generations removed")
    for model in models:
        say(f"had seen them: {model}")
    if models or gone:
        say("run the same recipe to make again what depended on them; --gc removes what no run refers to")


def _uids_of(dag: Dag, asked: TakenDown) -> TakenDown:
    """Return the identities behind URLs and hashes, from every table that holds both."""
    found: set[str] = set()
    for manifest in readable_shards(dag.store, Contents.of(dag.store).shards):
        for entry in manifest.files:
            if entry.name.endswith(".parquet"):
                columns = dag.store.schema(manifest, entry.table).names
                wanted = [name for name in ("uid", "url", "sha256") if name in columns]
                if "uid" in wanted and len(wanted) > 1:
                    rows = dag.store.read(manifest, entry.table, wanted).to_pylist()
                    found.update(
                        r["uid"] for r in rows if asked.names(r["uid"], r.get("url"), r.get("sha256"))
                    )
    return TakenDown(uids=frozenset(found))


def _rewritten(
    dag: Dag,
    stage: RevisableStage,
    closed: dict[str, StageManifest],
    before: StageManifest,
    total: TakenDown,
    say: Say,
) -> StageManifest:
    """Publish a stage's shards over its present inputs, without the rows taken down."""
    context = dag.context(stage, closed)
    paths = {entry.shard: entry.path for entry in before.shards}
    tasks = context.partitioned() if stage.partition else _same_tasks(dag, before)
    done = dag.store.committed(stage.name, [task.key for task in tasks])
    wanted: list[ShardTask] = []
    for task in tasks:
        path = done.get(task.key, paths.get(task.shard))
        if path is not None and (task.key not in done or _holds(dag, dag.store.read_shard(path), total)):
            wanted.append(_amending(task, {"before": path, "take_down": True}))
    if wanted:
        stage.revise(context, wanted)
        say(f"{stage.name}: {len(wanted)} of {len(tasks)} shards rewritten")
    # A take-down that was stopped here before has left newer generations than the stage lists.
    is_behind = any(done.get(task.key) != paths.get(task.shard) for task in tasks)
    closing = close(context, tasks) if wanted or is_behind else before
    dag.run.record(stage.name, closing)
    return closing


def _same_tasks(dag: Dag, before: StageManifest) -> list[ShardTask]:
    """Return tasks for the shards that a stage has; a stage without inputs keeps its keys."""
    shards = dag.store.each_shard(before)
    return [
        ShardTask(dag.store.location, m.stage, m.shard, m.key, m.version, m.code, m.settings, m.inputs)
        for m in shards
    ]


def _holds(dag: Dag, manifest: ShardManifest, total: TakenDown) -> bool:
    """Return whether a shard's tables name a picture that was taken down."""
    for entry in manifest.files:
        if entry.name.endswith(".parquet") and "uid" in dag.store.schema(manifest, entry.table).names:
            column = dag.store.read(manifest, entry.table, ["uid"])["uid"]
            if not total.uids.isdisjoint(column.to_pylist()):
                return True
    return False


def _sweep(dag: Dag, total: TakenDown) -> tuple[int, list[str]]:
    """Remove every shard version of any run that holds a row taken down; return their number, and the models made from one."""
    store, contents = dag.store, Contents.of(dag.store)
    manifests = list(readable_shards(store, contents.shards))
    removed = {m.path: m for m in manifests if _holds(dag, m, total)}
    models = _seen_by(manifests, set(removed))
    for closed in referring_stages(store, set(removed), contents):
        for name in published(closed):
            store.storage.remove(name)
    for path, manifest in removed.items():
        store.storage.remove(path)
        for entry in manifest.files:
            store.storage.remove(store.file_name(manifest, entry))
    return len(removed), models


def _seen_by(manifests: Sequence[ShardManifest], removed: set[str]) -> list[str]:
    """Return the shards without rows of their own (models, statistics, reports) made, however indirectly, from these."""
    seen, grown = set(removed), True
    while grown:
        more = {
            m.path
            for m in manifests
            if m.path not in seen and any(path in seen for paths in m.inputs.values() for path in paths)
        }
        seen, grown = seen | more, bool(more)
    whole = [m for m in manifests if m.path in seen - removed and m.shard in ("all", "model")]
    return sorted(
        f"{m.stage} {m.key}: {', '.join(sorted({entry.table for entry in m.files}))}" for m in whole
    )


def _is_stale(dag: Dag, manifest: StageManifest) -> bool:
    return dag.store.stage(manifest.stage, manifest.key) is None or any(
        path != (dag.run.facts["stages"].get(name) or {}).get("path")
        for name, path in manifest.inputs.items()
    )


class Amendment(TypedDict):
    """How the next version of a shard is made: from which manifest, and what is done to it."""

    before: str
    retry: NotRequired[list[str]]
    """Rows rejected for one of these reasons are fetched again."""
    take_down: NotRequired[bool]
    """Rows that were taken down since are removed."""


def _amending(task: ShardTask, amendment: Amendment) -> ShardTask:
    """Return a task that makes a shard's next version under the same key."""
    return dataclasses.replace(task, payload={**task.payload, "amend": amendment})


def _closed(dag: Dag) -> list[tuple[Stage, Context, StageManifest]]:
    """Return the stages that are complete over the inputs they have now."""
    closed: dict[str, StageManifest] = {}
    found: list[tuple[Stage, Context, StageManifest]] = []
    for stage in dag.stages:
        if all(name in closed for name in stage.inputs):
            context = dag.context(stage, closed)
            done = dag.store.stage(stage.name, context.key)
            if done is not None:
                closed[stage.name] = done
                found.append((stage, context, done))
    return found
