"""Queries about a run: its status, its lineage, whether every byte is as committed, and which files nothing refers to."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, cast

from corgi.flow import waiting
from corgi.flow.batches import over_batches
from corgi.flow.code import code_digest, commit_of
from corgi.flow.dag import Dag
from corgi.flow.locks import held
from corgi.settings.errors import InputError, StorageError
from corgi.storage.roots import is_object_store
from corgi.tables.garbage import Part, facts_of_runs, parts, remove, unreferenced, unreferenced_in
from corgi.tables.manifest import ShardEntry, StageManifest
from corgi.tables.run import Run, RunFacts
from corgi.tables.store import Store


def require(run: Run) -> None:
    """Check that a run exists.

    Raises:
        InputError: nothing has been recorded about it.

    """
    if not run.exists:
        raise InputError(
            f"there is no run {run.name} at {run.storage.locate('').rstrip('/')}; nothing was changed; check name and root, or run the recipe"
        )


def status(run: Run) -> Iterator[str]:
    """Yield one line per complete stage (shards, rows, bytes), then what a running command is waiting for and what `--gc` would free."""
    require(run)
    for name, manifest in run.stages().items():
        rows = manifest.rows
        yield (
            f"{name:<12} {len(manifest.shards):>5} shards  {rows.rows_in:>9} in  {rows.kept:>9} kept  "
            f"{sum(rows.rejected.values()):>9} rejected  {_num_bytes(run, manifest):>14} bytes  {manifest.key}"
        )
    yield from waiting.lines(run.folder)
    garbage = unreferenced(run.store)
    yield f"--gc would free {sum(garbage.values())} bytes in {len(garbage)} files that no run under this root refers to"


def _num_bytes(run: Run, manifest: StageManifest) -> int:
    return sum(entry.size for shard in run.store.listed(manifest) for entry in shard.files)


def lineage(run: Run, of: str | None = None) -> Iterator[str]:
    """Yield what a run or one of its results was made from: recipe, code, commit, every input manifest, the lists.

    `of` is a stage, the path of a committed file, or a file of the run's folder such as report.html.

    Raises:
        InputError: there is no such run, stage or file.

    """
    require(run)
    facts, stages = run.facts, run.stages()
    yield f"run {run.name}: code {facts.get('code')}, commit {_commit(facts)}"
    yield f"  recipe {run.storage.locate('run.json')}"
    for name in _needed(run, stages, of):
        manifest = stages[name]
        yield f"{name}: {manifest.digest}"
        yield f"  manifest {manifest.path}, code {manifest.code}, commit {manifest.commit or commit_of(manifest.code)}"
        yield from (f"  from {stage}: {path}" for stage, path in manifest.inputs.items())
        outside = manifest.outside
        if isinstance(manifest.outside, dict):
            yield from (
                f"  from outside: {what} {sha}" for what, sha in cast("dict[str, str]", outside).items()
            )
        sources: dict[str, str] = {}
        for shard in run.store.listed(manifest) if not manifest.inputs else ():
            sources.update({source["sha256"]: source["path"] for source in shard.facts.get("sources", [])})
        yield from (f"  from list: sha256 {sha256} {path}" for sha256, path in sources.items())
        yield from (f"  shard {entry.shard}: {entry.path} {entry.digest}" for entry in manifest.shards)


def _commit(facts: RunFacts) -> str:
    commit, code = facts.get("commit"), str(facts.get("code"))
    return str(commit or commit_of(code) or ("this folder's code" if code == code_digest() else "unknown"))


def _needed(run: Run, stages: dict[str, StageManifest], of: str | None) -> list[str]:
    """Return the stages that a result depends on, in order; all of them if none is named."""
    if of is None or run.published(of.rpartition(f"{run.name}/")[2]):
        return list(stages)
    target = of if of in stages else _stage_of(run, stages, of)
    wanted, queue = {target}, [target]
    while queue:
        for name in stages[queue.pop()].inputs:
            if name in stages and name not in wanted:
                wanted.add(name)
                queue.append(name)
    return [name for name in stages if name in wanted]


def _stage_of(run: Run, stages: dict[str, StageManifest], path: str) -> str:
    name = Path(path).name
    for stage, manifest in stages.items():
        if f"/{stage}/" in path and any(
            entry.name == name for shard in run.store.listed(manifest) for entry in shard.files
        ):
            return stage
    raise InputError(
        f"--of {path}: run {run.name} has no such stage or file; nothing was changed; name a stage ({', '.join(stages)}), a committed file or report.html"
    )


def verify(dag: Dag) -> Iterator[str]:
    """Hash every committed file of a run, in tasks if there are many; yield one line per stage.

    Raises:
        StorageError: a file differs from what was committed; the message names the first, what was found and expected, and how many differ.

    """
    run = dag.run
    require(run)
    wrong: list[str] = []
    for name, manifest in run.stages().items():
        files = size = 0
        label = f"verify: {name}"
        for shard in over_batches(dag.recipe, verified, manifest.shards, run.store.location, label):
            files, size, wrong = files + shard.files, size + shard.num_bytes, wrong + shard.complaints
            yield from shard.complaints
        if manifest.index is not None:
            found = run.store.verify_index(manifest)
            files, size, wrong = files + 1, size + manifest.index.size, wrong + found
            yield from found
        yield f"{name:<12} {files:>6} files  {size:>14} bytes hashed"
    if wrong:
        raise StorageError(
            f"{wrong[0]}{f' and {len(wrong) - 1} more' if wrong[1:] else ''}; all other files are intact; rerun their stage with --force --only"
        )


class Verified(NamedTuple):
    """The number of hashed files and bytes of a shard, and one line for each file that differs from what was committed."""

    files: int
    num_bytes: int
    complaints: list[str]


def verified(root: str, entries: list[ShardEntry]) -> list[Verified]:
    """Hash every file of some shards.

    Raises:
        StorageError: a manifest is not the one that its stage lists.

    """
    store = Store(root)
    shards = [store.listed_shard(entry) for entry in entries]
    return [
        Verified(len(shard.files), sum(entry.size for entry in shard.files), store.verify(shard))
        for shard in shards
    ]


def collect(dag: Dag, only_show: bool) -> Iterator[str]:
    """Remove, or only show, files that no run under the root refers to, in tasks if there are many. Every recorded run is locked meanwhile.

    Raises:
        ClusterError: files should be removed, but a run under this root is being executed.

    """
    store = dag.store
    number = size = 0
    with ExitStack() as locks:
        if not only_show:
            for name in facts_of_runs(store):
                folder = dag.run.scratch_root if is_object_store(store.location) else Path(store.location)
                locks.enter_context(held(folder / name))
        function = shown if only_show else removed
        for found in over_batches(dag.recipe, function, parts(store), store.location, "gc", size=1):
            number, size = number + len(found), size + sum(found.values())
            yield from (f"{of:>12} {store.storage.locate(name)}" for name, of in found.items())
        if not only_show:
            _prune(store.location)
    yield f"{'would remove' if only_show else 'removed'} {number} files, {size} bytes"


def shown(root: str, some: list[Part]) -> list[dict[str, int]]:
    """Return the files of each part that no run refers to, with their sizes in bytes."""
    store = Store(root)
    runs = facts_of_runs(store)
    return [unreferenced_in(store, runs, part) for part in some]


def removed(root: str, some: list[Part]) -> list[dict[str, int]]:
    """Remove the files of each part that no run refers to; return what `shown` would have returned before."""
    found = shown(root, some)
    for names in found:
        remove(Store(root), names)
    return found


def _prune(location: str) -> None:
    """Remove folders that became empty, and links whose target is gone, such as `latest-run` of W&B."""
    if is_object_store(location):
        return
    paths = (Path(location) / "store").rglob("*")
    for path in sorted(paths, key=lambda path: (len(path.parts), not path.is_symlink()), reverse=True):
        if path.is_symlink():
            if not path.exists():
                path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
