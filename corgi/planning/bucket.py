"""The shards of a bucket: their rows are read from the private files, merged and committed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from corgi.planning.blocklist import Blocklist, hashes
from corgi.planning.merge import merged
from corgi.planning.partition import SPILL, digests_of, leading_of, spilled
from corgi.planning.revise import planned_rows, without
from corgi.settings.data import PlanSettings
from corgi.sources.identity import ranges_of
from corgi.sources.samples import Tally
from corgi.sources.sources import Source
from corgi.tables.arrow import pc
from corgi.tables.schema import BLOCKED_HASHES
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import TakenDown, read_taken_down


@dataclass(frozen=True)
class Pass:
    """The result of one pass over the sources: private files by ranges of the hash, and what else the merge needs.

    `tallies` counts, per source, the members that are not rows. `folder` must be readable on every node.
    """

    lists: list[Source]
    tallies: list[Tally]
    folder: Path
    num_buckets: int
    num_shards: int
    settings: PlanSettings
    blocklist: Blocklist


def shards_of(found: Pass) -> list[range]:
    """Return, bucket by bucket, the shards that end in it."""
    ends = [bucket * found.num_shards // found.num_buckets for bucket in range(found.num_buckets + 1)]
    return [range(first, last) for first, last in pairwise(ends)]


def commit_shards(
    found: Pass,
    shards: range,
    pending: Mapping[int, ShardTask],
    reach: Callable[[int], None] = lambda number: None,
) -> int:
    """Commit those of `shards` that are pending; return their number. `reach` is called with the number so far after each.

    Raises:
        InputError: two URLs were given the same uid.

    """
    names = pa.array([source.sha256 for source in found.lists], pa.string())
    store, taken = None, TakenDown()
    num_made = 0
    for shard, rows in rows_by_shard(found, shards):
        if shard not in pending:
            continue
        task = pending[shard]
        if store is None:
            store = Store(task.root)
            taken = read_taken_down(store.storage)
        table = merged(rows, names, found.settings, found.blocklist)
        _commit(store, task, table, found, taken)
        num_made += 1
        reach(num_made)
    return num_made


def rows_by_shard(found: Pass, shards: range) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of each of some consecutive shards; one bucket is in memory, and parts of shards that continue in the next."""
    num_buckets, num_shards = found.num_buckets, found.num_shards
    parts: defaultdict[int, list[pa.Table]] = defaultdict(list)
    done = shards.start
    for bucket in range(
        shards.start * num_buckets // num_shards, -(-shards.stop * num_buckets // num_shards)
    ):
        for rows in spilled(found.folder, bucket):
            for shard, part in _split(rows.combine_chunks(), num_shards, shards):
                parts[shard].append(part)
        whole = min(shards.stop, (bucket + 1) * num_shards // num_buckets)
        for shard in range(done, whole):
            yield shard, pa.concat_tables([SPILL.empty_table(), *parts.pop(shard, [])])
        done = max(done, whole)


def _split(rows: pa.Table, num_shards: int, shards: range) -> Iterator[tuple[int, pa.Table]]:
    numbers = ranges_of(leading_of(digests_of(rows)), num_shards)
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(shards.start, shards.stop + 1))
    for shard, first, last in zip(shards, edges[:-1], edges[1:], strict=True):
        if last > first:
            yield shard, rows.take(pa.array(order[first:last]))


def _commit(store: Store, task: ShardTask, table: pa.Table, found: Pass, taken: TakenDown) -> None:
    rows_in = pc.sum(pc.list_value_length(table["sources"])).as_py() or 0
    table = without(table, taken)
    splits = Counter(table["split"].to_pylist())
    facts = {"urls": table.num_rows, **{split: splits[split] for split in ("train", "val", "test")}}
    is_first = int(task.shard) == 0
    if is_first:  # every shard's manifest would otherwise name every file of the list
        facts["sources"] = list(map(_source_facts, found.lists, found.tallies))
    with store.attempt(task) as attempt:
        attempt.write_table("plan", table)
        blocked = sorted(set(hashes(found.settings))) if is_first else []
        if blocked:
            attempt.write_table("blocked_hashes", pa.table([blocked], schema=BLOCKED_HASHES))
        attempt.commit(planned_rows(table, rows_in), facts)


def _source_facts(source: Source, tally: Tally) -> dict[str, object]:
    """Return the facts of a source, with the number of members that are not rows, if any."""
    facts = {"sha256": source.sha256, "path": source.path, "format": source.format}
    left_out = {name: number for name, number in sorted(tally.items()) if number}
    return {**facts, **({"left_out": left_out} if left_out else {})}
