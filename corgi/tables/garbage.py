"""The contents of a store: every manifest, what runs refer to, and what can be removed."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from corgi.settings.errors import StorageError
from corgi.settings.recipe import Recipe
from corgi.storage.many import MOST_AT_ONCE
from corgi.storage.roots import open_storage
from corgi.tables.generations import generation
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.run import RunFacts, run_facts
from corgi.tables.stage_index import ListedShard, index_name
from corgi.tables.store import Store

_KEPT_FOLDERS = ("taken-down",)
SHARDS_PER_PART = 16_384


class Part(NamedTuple):
    """The folders of a stage from `first` to `end`, which is excluded; without `end`, to the last."""

    stage: str
    first: str = ""
    end: str = ""

    def holds(self, path: str) -> bool:
        """Return whether a file of the stage is in this part."""
        folder = path.split("/")[1]
        return folder >= self.first and (not self.end or folder < self.end)


WHOLE = Part("")


def parts(store: Store, size: int = SHARDS_PER_PART) -> list[Part]:
    """Return the parts of a store, in order, each with at most `size` shards; every file of a stage is in one part."""
    found = list[Part]()
    for stage in sorted(store.storage.folders("")):
        bounds = ["", *sorted(store.storage.folders(stage))[size::size], ""]
        found += [Part(stage, *bound) for bound in pairwise(bounds)]
    return found


@dataclass
class Contents:
    """The names in a store, listed once: manifests by kind, and every file's size in bytes."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    shards: list[str] = field(default_factory=list[str])
    stages: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, store: Store, part: Part = WHOLE) -> "Contents":
        """List a store, or a part of it."""
        found = cls()
        for name, size in store.storage.walk(*part):
            parts = name.split("/")
            found.sizes[name] = size
            if generation(parts[-1]) is None or parts[0] in _KEPT_FOLDERS:
                continue
            if len(parts) == 4 and parts[1] == "closed":
                found.stages.append(name)
            elif len(parts) == 3:
                found.shards.append(name)
        return found


def facts_of_runs(store: Store) -> dict[str, RunFacts]:
    """Return run.json of every run under the store's root, by run name.

    Raises:
        StorageError: one is damaged; nothing may be removed while it is unknown what that run refers to.

    """
    root = open_storage(store.location)
    found: dict[str, RunFacts] = {}
    for name in root.folders(""):
        if name == "store" or "run.json" not in root.names(name):
            continue
        try:
            found[name] = run_facts(root.read(f"{name}/run.json"))
        except (ValueError, TypeError):
            raise StorageError(
                f"{root.locate(f'{name}/run.json')} is damaged; nothing was removed; remove that run's folder or run its recipe again"
            ) from None
    return found


def readable_shards(store: Store, paths: Iterable[str]) -> Iterator[ShardManifest]:
    """Return an iterator over the shard manifests that can be read, in order; damaged ones are skipped."""

    def opened(path: str) -> ShardManifest | None:
        try:
            return store.read_shard(path)
        except StorageError:
            return None

    return (shard for shard in store.each_of(paths, opened) if shard is not None)


def unreferenced(store: Store) -> dict[str, int]:
    """Return the files of a whole store that nothing refers to, with their sizes in bytes, stage by stage."""
    runs, found = facts_of_runs(store), dict[str, int]()
    for stage in sorted(store.storage.folders("")):
        found |= unreferenced_in(store, runs, Part(stage))
    return found


def unreferenced_in(store: Store, runs: Mapping[str, RunFacts], part: Part) -> dict[str, int]:
    """Return, with their sizes in bytes, the files of a part that no run refers to and no unfinished stage of a run would reuse.

    A run also refers to the previous result of an unfinished stage until that stage is complete.
    """
    contents = Contents.of(store, part)
    kept: set[str] = set()
    listed: set[str] = set()
    for manifest in _referred_to(store, runs.values(), part.stage):
        kept.update(published(manifest))
        for shard in filter(lambda shard: part.holds(shard.path), store.each_listed(manifest)):
            listed.add(shard.path)
            kept.update(_files_of(store, shard))
    others = (path for path in contents.shards if path not in listed)
    for shard in readable_shards(store, others):
        if _is_unfinished(shard, runs.values()):
            kept.update(_files_of(store, shard))
    busy = {name for facts in runs.values() for name in _open_stages(facts)}
    keys = {path.rpartition("/")[0] for path in contents.shards}
    return {
        name: size
        for name, size in sorted(contents.sizes.items())
        if name not in kept and not _stays(name, kept, busy, keys)
    }


def remove(store: Store, names: Iterable[str]) -> None:
    """Remove files, many at a time. Manifests are removed first, so that no manifest lists missing files if this is interrupted."""
    manifests, files = list[str](), list[str]()
    for name in names:
        is_manifest = generation(name.rpartition("/")[2]) is not None
        (manifests if is_manifest else files).append(name)
    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        for some in (manifests, files):
            list(threads.map(store.storage.remove, some))


def _referred_to(store: Store, runs: Iterable[RunFacts], name: str) -> Iterator[StageManifest]:
    """Yield the current results of a stage in runs, and the previous results of an unfinished stage, each once."""
    pointers = [item for facts in runs for item in (*facts["stages"].items(), *facts["former"].items())]
    for key in dict.fromkeys(entry["key"] for stage, entry in pointers if stage == name):
        manifest = store.stage(name, key)
        if manifest is not None:
            yield manifest


def _files_of(store: Store, shard: ListedShard | ShardManifest) -> set[str]:
    """Return the names of a shard's manifest, files and statistics."""
    return {shard.path, *(store.file_name(shard, entry) for entry in shard.files), *_stats(shard)}


def published(manifest: StageManifest) -> list[str]:
    """Return the names of a stage's own files: its manifest, and its index if it has one."""
    index = index_name(manifest)
    return [manifest.path] if index is None else [manifest.path, index]


def _stays(name: str, kept: set[str], busy: set[str], keys: set[str]) -> bool:
    """Return whether a file is kept although no manifest lists it: checkpoints of an unfinished model, and the take-down lists of this root."""
    stage, *rest = name.split("/")
    if stage in _KEPT_FOLDERS:
        return True
    in_work = len(rest) > 2 and rest[1] == "work"
    return in_work and (stage in busy and f"{stage}/{rest[0]}" not in keys)


def _stats(manifest: ListedShard | ShardManifest) -> set[str]:
    folder = manifest.path.rpartition("/")[0]
    return {f"{folder}/{entry.name.partition('-')[0]}-stats.json" for entry in manifest.files}


def _open_stages(facts: RunFacts) -> set[str]:
    """Return the stages of a run's pipeline that it has not completed."""
    return set(facts.get("order", ())) - set(facts["stages"])


def _is_unfinished(manifest: ShardManifest, runs: Iterable[RunFacts]) -> bool:
    """Return whether some run has not completed this shard's stage and would make the shard with the same settings."""
    told = manifest.settings
    return any(
        manifest.stage in _open_stages(facts) and _ask_the_same(told, facts.get("recipe", {}))
        for facts in runs
    )


def _ask_the_same(told: Mapping[str, object], recipe: Mapping[str, object]) -> bool:
    """Return whether a recipe means the same as recorded settings of this or an earlier version."""
    asked = {name: recipe.get(name) for name in told}
    return asked == told or Recipe.recorded_meaning(asked) == Recipe.recorded_meaning(told)


def referring_stages(store: Store, removed: set[str], contents: Contents) -> list[StageManifest]:
    """Return the stage manifests that list one of these shard manifests."""
    found = (store.read_stage(path) for path in contents.stages)
    return [manifest for manifest in found if any(entry.path in removed for entry in manifest.shards)]
