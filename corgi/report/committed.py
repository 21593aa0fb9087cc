"""What a report reads of a run: sums over the indexes of its stages, tables up to a size limit, small files by kind.

Rows, bytes and facts are those of all shards, whose entries are read one at a time. If reading a table from all shards would be
slow, only the first shards are read, and `is_sampled` is true; since a shard is a range of hashed identities, that is a fair sample.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from corgi.storage.roots import is_object_store
from corgi.tables.manifest import FileEntry, StageManifest
from corgi.tables.run import Run
from corgi.tables.split_counts import SplitCount, of_facts
from corgi.tables.stage_index import ListedShard

MAX_SHARDS = 4_096
"""Maximum number of shards whose files may be opened."""
MAX_PICTURE_BYTES = 256 * 2**20


@dataclass
class Totals:
    """Sums over all shards of a stage: rows and bytes by table, and the numbers and counts among their facts."""

    rows: Counter[str] = field(default_factory=Counter[str])
    num_bytes: Counter[str] = field(default_factory=Counter[str])
    numbers: Counter[str] = field(default_factory=Counter[str])
    counts: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    splits: Counter[str] | None = field(default_factory=Counter[str])
    """Number of kept images by split; None if a shard does not record it."""

    def add(self, shard: ListedShard) -> None:
        """Add a shard."""
        for entry in shard.files:
            self.rows[entry.table] += entry.rows
            self.num_bytes[entry.table] += entry.size
        facts = shard.facts
        for name, value in facts.items():
            if isinstance(value, int):
                self.numbers[name] += value
            elif isinstance(value, dict) and all(isinstance(number, int) for number in value.values()):
                self.counts.setdefault(name, Counter()).update(value)
        self._add_splits(of_facts(facts))

    def _add_splits(self, counts: dict[str, SplitCount] | None) -> None:
        if counts is None or self.splits is None:
            self.splits = None
        else:
            self.splits.update({split: count.images for split, count in counts.items()})


class Committed:
    """A run's committed stages, read once; a stage that the run does not have has no shards, tables or files."""

    def __init__(self, run: Run) -> None:
        """Read the run's own facts and stage manifests."""
        self.name = run.name
        self.store = run.store
        self.facts = run.facts
        self.stages: dict[str, StageManifest] = run.stages()
        self._stages_read: dict[str, tuple[Totals, list[ListedShard]]] = {}
        self._tables: dict[tuple[str, ...], pa.Table | None] = {}
        if is_object_store(self.store.location):
            # All indexes are requested together, so that the report waits once instead of once per stage.
            list(self.store.each_of(self.stages, self._passed_over))

    def in_order(self) -> list[str]:
        """Return the stages in the order of the pipeline that ran last, followed by stages of other pipelines."""
        order = self.facts.get("order", [])
        return sorted(self.stages, key=lambda stage: order.index(stage) if stage in order else len(order))

    def heading(self, stage: str) -> tuple[str, str]:
        """Return the title and the intro of a stage's section, as recorded when its pipeline ran."""
        title, intro = self.facts.get("headings", {}).get(stage, ("", ""))
        return title or stage.capitalize(), intro

    def shards(self, stage: str) -> list[ListedShard]:
        """Return a stage's shards, at most the first 4,096."""
        return self._passed_over(stage)[1]

    def totals(self, stage: str) -> Totals:
        """Return the sums over all shards of a stage."""
        return self._passed_over(stage)[0]

    def _passed_over(self, stage: str) -> tuple[Totals, list[ListedShard]]:
        manifest = self.stages.get(stage)
        if manifest is None:
            return Totals(), []
        if stage not in self._stages_read:
            first: list[ListedShard] = []
            totals = Totals()
            for shard in self.store.each_listed(manifest):
                totals.add(shard)
                if len(first) < MAX_SHARDS:
                    first.append(shard)
            self._stages_read[stage] = totals, first
        return self._stages_read[stage]

    def listed(self, stage: str) -> list[ListedShard]:
        """Return the entries of all shards of a stage, from its index."""
        manifest = self.stages.get(stage)
        return [] if manifest is None else self.store.listed(manifest)

    def entries(self, stage: str, table: str) -> list[FileEntry]:
        """Return the committed files of one table in the first shards."""
        return [entry for shard in self.shards(stage) for entry in shard.files if entry.table == table]

    def num_rows(self, stage: str, table: str) -> int:
        """Return a table's number of rows; no data file is opened."""
        return self.totals(stage).rows[table]

    def num_bytes(self, stage: str, table: str) -> int:
        """Return a table's size in bytes; no data file is opened."""
        return self.totals(stage).num_bytes[table]

    def total(self, stage: str, fact: str) -> int:
        """Return the sum of a numeric fact over all shards."""
        return self.totals(stage).numbers[fact]

    def counts(self, stage: str, fact: str) -> Counter[str]:
        """Return the sums of a fact that consists of counts over all shards; empty if no shard has it."""
        return self.totals(stage).counts.get(fact, Counter())

    @cached_property
    def sample(self) -> tuple[str, ...]:
        """Return the ids of the shards whose tables are read: the first ones, up to 256 MiB of pictures, but at least one."""
        chosen, total = [], 0
        for shard in self.shards("download") or self.shards("plan")[:1]:
            total += sum(entry.size for entry in shard.files)
            if chosen and total > MAX_PICTURE_BYTES:
                break
            chosen.append(shard.shard)
        return tuple(chosen)

    @property
    def is_sampled(self) -> bool:
        """Return whether tables are read only in part."""
        return "download" in self.stages and len(self.sample) < len(self.stages["download"].shards)

    def sampled(self, stage: str, table: str) -> list[ListedShard]:
        """Return the sampled shards that have a table."""
        chosen = [shard for shard in self.shards(stage) if shard.shard in self.sample]
        return [shard for shard in chosen if any(entry.table == table for entry in shard.files)]

    def table(self, stage: str, table: str, columns: list[str]) -> pa.Table | None:
        """Return columns of a table over the sampled shards; None if no shard has it.

        Raises:
            StorageError: a file is missing or changed.

        """
        key = (stage, table, *columns)
        if key not in self._tables:
            read = partial(self.store.read, table=table, columns=columns)
            parts = list(self.store.each_of(self.sampled(stage, table), read))
            self._tables[key] = pa.concat_tables(parts) if parts else None
        return self._tables[key]

    def files(self, stage: str, suffix: str) -> dict[str, Path]:
        """Return a stage's files of one kind by table name, each checked against its sha256."""
        files = [
            (shard, entry)
            for shard in self.shards(stage)
            for entry in shard.files
            if entry.name.endswith(suffix)
        ]
        paths = self.store.each_of(files, lambda of: self.store.verified(*of))
        return {entry.table: path for (_, entry), path in zip(files, paths, strict=True)}

    def json(self, stage: str) -> dict[str, Any]:
        """Return a stage's JSON files by table name."""
        return {table: json.loads(path.read_text()) for table, path in self.files(stage, ".json").items()}

    def json_lines(self, stage: str) -> dict[str, list[dict[str, object]]]:
        """Return the objects of a stage's JSON-lines files by table name."""
        by_table = {}
        for table, path in self.files(stage, ".jsonl").items():
            by_table[table] = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return by_table

    def pictures(self, stage: str) -> dict[str, bytes]:
        """Return a stage's PNG files by table name."""
        return {table: path.read_bytes() for table, path in self.files(stage, ".png").items()}
