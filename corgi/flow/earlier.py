"""What earlier commits of a stage contain, so that content that is produced again keeps its name."""

from functools import cached_property

from corgi.flow.stage import Fingerprint
from corgi.settings.errors import StorageError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import StageManifest
from corgi.tables.run import Run

MOST_TAKEN_OVER = 4
"""Largest number of closed stages from which rows are taken over: each is only searched for rows that those before it lack."""


class Earlier:
    """The shards of a stage from all its closed manifests under the root, those of this run first.

    A stage made again under another key (a raised version, another spelling of the list) often has the same content. Its shards
    are then named by the key under which they were first made, so that keys that depend on their digests stay valid, and all later
    work too. The settings must also be the same, since later stages read some of them in addition to the tables.
    """

    def __init__(self, run: Run, stage: str, recipe: Recipe, settings: tuple[str, ...]) -> None:
        """Take the stage and its sections of the recipe; the store is read when the first shard is requested."""
        self._run, self._stage = run, stage
        self._recipe, self._settings = recipe, settings

    def of(self, shard: str) -> tuple[tuple[str, str], ...]:
        """Return a shard's commits as (key under which it was first made, digest), the preferred first."""
        return tuple(self._commits.get(shard, ()))

    def alike(self, version: int, parts: dict[str, int], outside: Fingerprint) -> list[StageManifest]:
        """Return the closed stages that made every row in the same way as this version, this run's stage first, then by size."""
        own = self._run.former(self._stage)
        found = [
            manifest
            for manifest in self._closed()
            if is_made_by(manifest, version, parts) and manifest.outside == outside
        ]
        found.sort(key=lambda manifest: (own is None or manifest.key != own.key, -manifest.rows.rows_in))
        return found[:MOST_TAKEN_OVER]

    @cached_property
    def _commits(self) -> dict[str, dict[tuple[str, str], None]]:
        found: dict[str, dict[tuple[str, str], None]] = {}
        for manifest in self._closed():
            for entry in manifest.shards:
                found.setdefault(entry.shard, {})[entry.named, entry.digest] = None
        return found

    def _closed(self) -> list[StageManifest]:
        own = self._run.former(self._stage)
        keys = self._run.store.closed_keys(self._stage)
        if own is not None:
            keys.sort(key=lambda key: key != own.key)
        found: list[StageManifest | None] = []
        for key in keys:
            try:
                found.append(self._run.store.stage(self._stage, key))
            except StorageError:  # a damaged manifest is ignored
                continue
        return [manifest for manifest in found if manifest is not None and self._is_asked(manifest)]

    def _is_asked(self, manifest: StageManifest) -> bool:
        was = type(self._recipe).recorded_meaning(manifest.settings)
        return was == self._recipe.meaning(self._settings)


def is_made_by(manifest: StageManifest, version: int, parts: dict[str, int]) -> bool:
    """Return whether a stage was made with this version of the stage and of the parts that a recipe uses."""
    return manifest.version == version and _raised(manifest.parts or {}) == _raised(parts)


def _raised(parts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in parts.items() if number}
