"""What a report reads of a run: manifests whole, tables up to a bound, small files by kind.

A table is read from the first shards only when all of them would be slow; since a shard is a range of hashed
identities, that is a fair sample, and `is_sampled` is set.
"""

import json
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from corgi.tables.manifest import FileEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.stage_index import ListedShard

MAX_MANIFESTS = 4_096
MAX_PICTURE_BYTES = 256 * 2**20


class Committed:
    """A run's committed stages, read once; a stage that is not there has no shards, tables or files."""

    def __init__(self, run: Run) -> None:
        """Read the run's own facts and stage manifests."""
        self.name = run.name
        self.store = run.store
        self.facts = run.facts
        self.stages: dict[str, StageManifest] = run.stages()
        self._shards: dict[str, list[ShardManifest]] = {}
        self._tables: dict[tuple[str, ...], pa.Table | None] = {}

    def in_order(self) -> list[str]:
        """Return the stages in the order of the pipeline that ran last, then those of others."""
        order = self.facts.get("order", [])
        return sorted(self.stages, key=lambda stage: order.index(stage) if stage in order else len(order))

    def heading(self, stage: str) -> tuple[str, str]:
        """Return the title and the intro of a stage's section, as the stage had them when its pipeline ran."""
        title, intro = self.facts.get("headings", {}).get(stage, ("", ""))
        return title or stage.capitalize(), intro

    def shards(self, stage: str) -> list[ShardManifest]:
        """Return a stage's shard manifests, the first 4,096 of them at most."""
        manifest = self.stages.get(stage)
        if manifest is None:
            return []
        if stage not in self._shards:
            first = manifest.model_copy(update={"shards": manifest.shards[:MAX_MANIFESTS]})
            self._shards[stage] = self.store.shards(first)
        return self._shards[stage]

    def listed(self, stage: str) -> list[ListedShard]:
        """Return what all shard manifests of a stage say, from its index."""
        manifest = self.stages.get(stage)
        return [] if manifest is None else self.store.listed(manifest)

    def entries(self, stage: str, table: str) -> list[FileEntry]:
        """Return the committed files of one table."""
        return [entry for shard in self.shards(stage) for entry in shard.files if entry.table == table]

    def num_rows(self, stage: str, table: str) -> int:
        """Return a table's rows by its manifests; no data file is opened."""
        return sum(entry.rows for entry in self.entries(stage, table))

    def num_bytes(self, stage: str, table: str) -> int:
        """Return a table's bytes by its manifests; no data file is opened."""
        return sum(entry.size for entry in self.entries(stage, table))

    def total(self, stage: str, fact: str) -> int:
        """Return the sum over shards of one number among their facts."""
        return sum(int(shard.facts.get(fact, 0)) for shard in self.shards(stage))

    def counts(self, stage: str, fact: str) -> Counter[str]:
        """Return the sums over shards of counts among their facts; empty where they hold none."""
        return sum((Counter(shard.facts.get(fact) or {}) for shard in self.shards(stage)), Counter())

    @cached_property
    def sample(self) -> tuple[str, ...]:
        """Return the ids of the shards whose tables are read: the first, up to 256 MiB of pictures, one at least."""
        chosen, total = [], 0
        for shard in self.shards("download") or self.shards("plan")[:1]:
            total += sum(entry.size for entry in shard.files)
            if chosen and total > MAX_PICTURE_BYTES:
                break
            chosen.append(shard.shard)
        return tuple(chosen)

    @property
    def is_sampled(self) -> bool:
        """Return whether tables are read in part."""
        return "download" in self.stages and len(self.sample) < len(self.stages["download"].shards)

    def sampled(self, stage: str, table: str) -> list[ShardManifest]:
        """Return the sampled shards that hold a table."""
        chosen = [shard for shard in self.shards(stage) if shard.shard in self.sample]
        return [shard for shard in chosen if any(entry.table == table for entry in shard.files)]

    def table(self, stage: str, table: str, columns: list[str]) -> pa.Table | None:
        """Return columns of a table over the sampled shards; None where no shard has it.

        Raises:
            StorageError: a file is missing or changed.

        """
        asked = (stage, table, *columns)
        if asked not in self._tables:
            parts = [self.store.read(shard, table, columns) for shard in self.sampled(stage, table)]
            self._tables[asked] = pa.concat_tables(parts) if parts else None
        return self._tables[asked]

    def files(self, stage: str, suffix: str) -> dict[str, Path]:
        """Return a stage's files of one kind by table name, each checked against its sha256."""
        return {
            entry.table: self.store.verified(shard, entry)
            for shard in self.shards(stage)
            for entry in shard.files
            if entry.name.endswith(suffix)
        }

    def json(self, stage: str) -> dict[str, Any]:
        """Return a stage's JSON files by table name."""
        return {table: json.loads(path.read_text()) for table, path in self.files(stage, ".json").items()}

    def json_lines(self, stage: str) -> dict[str, list[dict[str, Any]]]:
        """Return the objects of a stage's JSON-lines files by table name."""
        found = {}
        for table, path in self.files(stage, ".jsonl").items():
            found[table] = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return found

    def pictures(self, stage: str) -> dict[str, bytes]:
        """Return a stage's PNG files by table name."""
        return {table: path.read_bytes() for table, path in self.files(stage, ".png").items()}
