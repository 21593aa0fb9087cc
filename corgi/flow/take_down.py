"""Permanent removal of rows from every table under a root, and a report of the models that were trained on them.

Shards that may contain a row are computed from the hash of the row's URL, and rows with a given content are found in the features
tables; no other table is read. Manifests and tables are read in tasks.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from corgi.flow.amend import amending
from corgi.flow.batches import over_batches
from corgi.flow.closing import close
from corgi.flow.dag import Dag
from corgi.flow.stage import RevisableStage
from corgi.settings.errors import InputError
from corgi.tables.garbage import Contents, published, readable_shards, referring_stages
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.places import Places, has_own_uids, uid
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import TakenDown, take_down

Say = Callable[[str], None]
_UID, _HASH = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


def read_names(path: Path, canonical: Callable[[str], str]) -> TakenDown:
    """Return the take-down list in a file: one uid, sha256 or URL per line; empty lines and # comments are skipped.

    Raises:
        InputError: the file cannot be read, is empty, or contains a line that is none of these.

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
        raise InputError(
            f"--take-down: {path}: {told}; nothing was changed; write one uid, sha256 or URL per line"
        )
    return TakenDown(
        uids=frozenset(n for n in names if _UID.fullmatch(n)),
        hashes=frozenset(n for n in names if _HASH.fullmatch(n)),
        urls=frozenset(canonical(n) for n in names if "://" in n),
    )


@dataclass(frozen=True)
class Held:
    """The manifests of shards that may contain a row, and the paths of those that do."""

    read: list[ShardManifest]
    paths: set[str]


def take_down_rows(dag: Dag, asked: TakenDown, say: Say) -> None:
    """Permanently remove rows from every table under the root; report what had used them.

    First the list is published, then the stages that can be revised are rewritten without those rows, then every other shard version
    that contains one is removed: the next run makes again what was made from it. If interrupted, the same command continues.
    """
    contents = Contents.of(dag.store)
    closed_before = [dag.store.read_stage(path) for path in contents.stages]
    known = asked | _uids_of(dag, closed_before, asked)
    total = take_down(dag.store.storage, known)
    held = _held(dag, contents, closed_before, total)
    closed: dict[str, StageManifest] = {}
    old = dag.run.stages()
    for stage in dag.stages:
        if not isinstance(stage, RevisableStage) or stage.name not in old:
            continue
        if not set(stage.inputs) <= set(closed):
            continue
        closed[stage.name] = _rewritten(dag, stage, closed, old[stage.name], held.paths, say)
    models = _seen_by(held)
    _remove(dag.store, held)
    touched = [stage for stage in dag.stages if stage.name in old and stage.name not in closed]
    dag.run.forget([stage.name for stage in touched if _is_stale(dag, old[stage.name])])
    say(
        f"taken down: {len(total.uids)} pictures named in all under this root; {len(held.paths)} shard generations removed"
    )
    for model in models:
        say(f"had seen them: {model}")
    if models or held.paths:
        say("run the same recipe to make again what depended on them; --gc removes what no run refers to")


def _uids_of(dag: Dag, closed: Sequence[StageManifest], asked: TakenDown) -> TakenDown:
    """Return the uids of URLs and content hashes.

    A URL's uid is its hash, unless the list had its own uids: then the plans are read. Content is looked up
    in the features of a download, or in its images if there are none.
    """
    found = {uid(url) for url in asked.urls}
    if asked.hashes:
        found |= _found(dag, _paths_of_contents(dag.store, closed), asked, ("uid", "sha256"), "uid")
    named = TakenDown(uids=asked.uids | found, urls=asked.urls)
    return TakenDown(uids=named.uids | _found(dag, _paths_of_own(closed), named, ("uid", "url"), "uid"))


def _found(
    dag: Dag, paths: Sequence[str], names: TakenDown, columns: tuple[str, str], wanted: str
) -> set[str]:
    """Return a column of the named rows, from the tables that have both columns."""
    items = [(path, names, columns, wanted) for path in paths]
    return set(over_batches(dag.recipe, _named, items, dag.store.location, "take down: rows"))


def _named(root: str, items: list[tuple[str, TakenDown, tuple[str, str], str]]) -> list[str]:
    store = Store(root)
    found: list[str] = []
    for path, names, columns, wanted in items:
        for manifest in readable_shards(store, [path]):
            for table in _tables_with(store, manifest, columns):
                chosen = [row for row in table.to_pylist() if names.names(**row)]
                found += [row[wanted] for row in chosen]
    return found


def _tables_with(store: Store, manifest: ShardManifest, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield these columns of a shard's tables that have them all, smallest file first."""
    for entry in sorted(manifest.files, key=lambda entry: entry.size):
        if entry.name.endswith(".parquet") and set(columns) <= set(store.schema(manifest, entry.table).names):
            yield store.read(manifest, entry.table, list(columns))


def _paths_of_own(closed: Sequence[StageManifest]) -> list[str]:
    """Return the shards of the stages whose lists had their own uids."""
    return [entry.path for stage in closed if has_own_uids(stage) for entry in stage.shards]


def _paths_of_contents(store: Store, closed: Sequence[StageManifest]) -> list[str]:
    """Return the shards of the stages with content hashes of rows; if one such stage is made from another, only of the later one."""
    telling = [stage for stage in closed if _tells_contents(store, stage)]
    inputs = {path for stage in telling for path in stage.inputs.values()}
    return [entry.path for stage in telling if stage.path not in inputs for entry in stage.shards]


def _tells_contents(store: Store, stage: StageManifest) -> bool:
    first = readable_shards(store, [entry.path for entry in stage.shards[:1]])
    return any(True for manifest in first for _ in _tables_with(store, manifest, ("uid", "sha256")))


def _held(dag: Dag, contents: Contents, closed: Sequence[StageManifest], total: TakenDown) -> Held:
    """Return the manifests of shards that may contain a row taken down, and which of them do."""
    names = {stage.name for stage in dag.stages}
    urls = total.urls | _found(dag, _paths_of_own(closed), total, ("uid", "url"), "url")
    hashes = total.uids | {uid(url) for url in urls}
    paths = Places.of(stage for stage in closed if stage.stage in names).candidates(contents.shards, hashes)
    items = [(path, total.uids) for path in paths]
    found = list(over_batches(dag.recipe, _checked, items, dag.store.location, "take down: shards"))
    return Held([manifest for manifest, _ in found], {manifest.path for manifest, holds in found if holds})


def _checked(root: str, items: list[tuple[str, frozenset[str]]]) -> list[tuple[ShardManifest, bool]]:
    """Return the manifests that can be read, and whether their tables name a picture that was taken down."""
    store = Store(root)
    return [
        (manifest, _holds(store, manifest, uids))
        for path, uids in items
        for manifest in readable_shards(store, [path])
    ]


def _holds(store: Store, manifest: ShardManifest, uids: frozenset[str]) -> bool:
    return any(
        not uids.isdisjoint(table["uid"].to_pylist()) for table in _tables_with(store, manifest, ("uid",))
    )


def _rewritten(
    dag: Dag,
    stage: RevisableStage,
    closed: dict[str, StageManifest],
    before: StageManifest,
    held: set[str],
    say: Say,
) -> StageManifest:
    """Publish a stage's shards for its current inputs, without the rows taken down."""
    context = dag.context(stage, closed)
    paths = {entry.shard: entry.path for entry in before.shards}
    tasks = context.partitioned() if stage.partition else _same_tasks(dag, before)
    done = dag.store.committed(stage.name, [task.key for task in tasks])
    wanted: list[ShardTask] = []
    for task in tasks:
        path = done.get(task.key, paths.get(task.shard))
        if path is not None and (task.key not in done or path in held):
            wanted.append(amending(task, {"before": path, "take_down": True}))
    if wanted:
        stage.revise(context, wanted)
        say(f"{stage.name}: {len(wanted)} of {len(tasks)} shards rewritten")
    # An earlier take-down that was interrupted here has left newer versions than the stage lists.
    is_behind = any(done.get(task.key) != paths.get(task.shard) for task in tasks)
    closing = close(context, tasks, before=before) if wanted or is_behind else before
    dag.run.record(stage.name, closing)
    return closing


def _same_tasks(dag: Dag, before: StageManifest) -> list[ShardTask]:
    """Return tasks for the existing shards of a stage without inputs; they keep their keys."""
    kept = (before.version, before.code, before.settings, {})
    return [
        ShardTask(dag.store.location, before.stage, entry.shard, entry.path.split("/")[1], *kept)
        for entry in before.shards
    ]


def _remove(store: Store, held: Held) -> None:
    """Remove every shard version that contains a row taken down, and the stage manifests that list such a version."""
    contents = Contents.of(store)
    for closed in referring_stages(store, held.paths, contents):
        for name in published(closed):
            store.storage.remove(name)
    for manifest in held.read:
        if manifest.path in held.paths:
            store.storage.remove(manifest.path)
            for entry in manifest.files:
                store.storage.remove(store.file_name(manifest, entry))


def _seen_by(held: Held) -> list[str]:
    """Return the shards without rows (models, statistics, reports) that were made, directly or indirectly, from shards that contained a row."""
    seen, grown = set(held.paths), True
    while grown:
        more = {
            m.path
            for m in held.read
            if m.path not in seen and any(path in seen for paths in m.inputs.values() for path in paths)
        }
        seen, grown = seen | more, bool(more)
    whole = [m for m in held.read if m.path in seen - held.paths and m.shard in ("all", "model")]
    return sorted(
        f"{m.stage} {m.key}: {', '.join(sorted({entry.table for entry in m.files}))}" for m in whole
    )


def _is_stale(dag: Dag, manifest: StageManifest) -> bool:
    return dag.store.stage(manifest.stage, manifest.key) is None or any(
        path != (dag.run.facts["stages"].get(name) or {}).get("path")
        for name, path in manifest.inputs.items()
    )
