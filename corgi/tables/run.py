"""One run: the folder whose run.json points at the stage manifests it is made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corgi.settings.errors import InputError, StorageError
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.store import Store, write_file


class Run:
    """A named run under a root; it owns no table, it points at committed ones."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Open a run's folder; the folder is made when something is recorded."""
        self.folder = folder
        self.store = store

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run by its folder, such as runs/openmoji.

        Raises:
            InputError: there is no run in that folder.

        """
        path = Path(folder).absolute()
        if not (path / "run.json").exists():
            raise InputError(
                f"{folder} holds no run (no run.json); nothing was changed; name a run's folder such as runs/openmoji"
            )
        return cls(path, Store(path.parent))

    @property
    def facts(self) -> dict[str, Any]:
        """Return run.json: the resolved recipe and, by stage, the manifest's path, key and digest."""
        path = self.folder / "run.json"
        try:
            return {"stages": {}, **json.loads(path.read_text())}
        except FileNotFoundError:
            return {"stages": {}}
        except (ValueError, TypeError):
            raise StorageError(
                f"{path} is damaged; tables and models are safe; remove it and run the same command"
            ) from None

    def note(self, **values: Any) -> None:
        """Set top-level values of run.json, such as the resolved recipe."""
        self._write({**self.facts, **values})

    def record(self, stage: str, manifest: StageManifest) -> None:
        """Point the run at a stage's manifest."""
        facts = self.facts
        entry = {"path": manifest.path, "key": manifest.key, "digest": manifest.digest}
        if facts["stages"].get(stage) != entry:
            facts["stages"][stage] = entry
            self._write(facts)

    def forget(self, stages: Sequence[str]) -> None:
        """Stop pointing at stages whose results are about to be replaced, so that a run never mixes two recipes."""
        facts = self.facts
        kept = {name: entry for name, entry in facts["stages"].items() if name not in stages}
        if kept != facts["stages"]:
            self._write({**facts, "stages": kept})

    def stages(self) -> dict[str, StageManifest]:
        """Return the stages this run points at, in the order they were recorded."""
        found = {}
        for name, entry in self.facts["stages"].items():
            manifest = self.store.stage(name, entry["key"])
            if manifest is not None:
                found[name] = manifest
        return found

    def shards(self, stage: str) -> list[ShardManifest]:
        """Return the shard manifests of one stage of this run.

        Raises:
            InputError: the run has not completed that stage.

        """
        manifest = self.stages().get(stage)
        if manifest is None:
            raise InputError(
                f"run {self.folder.name} has no complete stage {stage}; nothing was changed; run pipelines/full.py first"
            )
        return self.store.shards(manifest)

    def _write(self, facts: dict[str, Any]) -> None:
        write_file(self.folder / "run.json", (json.dumps(facts, indent=1) + "\n").encode())
