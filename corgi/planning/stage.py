"""The plan stage: one partitioned pass over the sources gives identities, captions, groups, splits and shards.

The pass writes rows to private files by ranges of their URL's hash; each is then merged alone, so memory holds one.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from corgi.flow import screen
from corgi.flow.context import Context
from corgi.planning.blocklist import Blocklist, digests, hashes
from corgi.planning.merge import merged
from corgi.planning.partition import SPILL, digests_of, leading_of, num_buckets, spill, spilled
from corgi.planning.revise import planned_rows, without
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.settings.section import digest
from corgi.sources.identity import ranges_of
from corgi.sources.samples import MEANINGS, Tally
from corgi.sources.sources import Source, sources
from corgi.sources.unread import unread
from corgi.storage.errors import storage_full
from corgi.tables.arrow import pc
from corgi.tables.schema import BLOCKED_HASHES
from corgi.tables.store import ShardTask
from corgi.tables.taken_down import read_taken_down

_MAX_SHARDS = 65_536


@dataclass(frozen=True)
class Pass:
    """The result of one pass over the sources: private files by ranges of the hash, and their number.

    tallies count, per source, the members that are not rows.
    """

    lists: list[Source]
    tallies: list[Tally]
    folder: Path
    num_buckets: int
    num_shards: int


def run(context: Context) -> list[ShardTask]:
    """Commit one `plan` table per shard: one row per distinct URL, sorted by uid.

    Raises:
        InputError: the list is empty, cannot be read, or changes while it is read.
        StorageError: the disk is full.

    """
    settings: PlanSettings = context.recipe.plan
    lists, blocklist = sources(settings), Blocklist.of(settings)
    blocked = digests(settings)
    folder = context.run.folder / "spill"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        buckets = num_buckets(lists)
        tallies = [Tally() for _ in lists]
        num_rows = spill(lists, settings, folder, buckets, tallies)
        _check_rows(num_rows, lists, settings)
        _tell_left_out(settings, tallies)
        num_shards = min(_MAX_SHARDS, -(-num_rows // settings.number_sample_per_shard))
        meaning = {"sources": [source.meaning for source in lists], "blocked": blocked}
        payload = {"content": digest(meaning), "num_shards": num_shards}
        tasks = [context.task(f"{shard:05d}", payload) for shard in range(num_shards)]
        found = Pass(lists, tallies, folder, buckets, num_shards)
        _commit_all(context, context.pending(tasks), found, blocklist)
    except OSError as error:
        storage_full(error, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tasks


def _check_rows(num_rows: int, lists: list[Source], settings: PlanSettings) -> None:
    if num_rows == 0:
        raise InputError(
            f"plan.input: {', '.join(settings.input)} has no rows; nothing was started; name a list with URLs"
        )
    if sources(settings) != lists:
        raise InputError("plan.input changed while it was read; nothing is lost; run the same command again")


def _tell_left_out(settings: PlanSettings, tallies: list[Tally]) -> None:
    """Show which files of the input are not read, one line per folder, and which members are not rows, in one line."""
    for folder in unread(settings):
        screen.current().say(folder.line())
    left_out = +sum(tallies, Tally())
    if left_out:
        parts = [f"{MEANINGS[name]} ({number})" for name, number in sorted(left_out.items())]
        screen.current().say(f"plan: beside the rows: {', '.join(parts)}")


def _commit_all(context: Context, pending: list[ShardTask], found: Pass, blocklist: Blocklist) -> None:
    waiting = {int(task.shard): task for task in pending}
    names = pa.array([source.sha256 for source in found.lists], pa.string())
    num_made = 0
    with screen.bar("plan", len(pending), "shard") as bar:
        for shard, rows in by_shard(found):
            if shard in waiting:
                table = merged(rows, names, context.recipe.plan, blocklist)
                _commit(context, waiting[shard], table, found)
                num_made += 1
                bar.reach(num_made)


def by_shard(found: Pass) -> Iterator[tuple[int, pa.Table]]:
    """Yield every shard's rows; a shard that continues in the next private file waits for it."""
    done, held = 0, SPILL.empty_table()
    for bucket in range(found.num_buckets):
        held = pa.concat_tables([held, spilled(found.folder, bucket)]).combine_chunks()
        whole = (bucket + 1) * found.num_shards // found.num_buckets
        shards = ranges_of(leading_of(digests_of(held)), found.num_shards)
        order = np.argsort(shards, kind="stable")
        edges = np.searchsorted(shards[order], np.arange(done, whole + 1))
        for shard, start, stop in zip(range(done, whole), edges[:-1], edges[1:], strict=True):
            yield shard, held.take(pa.array(order[start:stop]))
        held = held.take(pa.array(order[edges[-1] :]))
        done = whole


def _commit(context: Context, task: ShardTask, table: pa.Table, found: Pass) -> None:
    rows_in = pc.sum(pc.list_value_length(table["sources"])).as_py() or 0
    table = without(table, read_taken_down(context.store.storage))
    splits = Counter(table["split"].to_pylist())
    facts = {"urls": table.num_rows, **{split: splits[split] for split in ("train", "val", "test")}}
    is_first = int(task.shard) == 0
    if is_first:  # every shard's manifest would otherwise name every file of the list
        facts["sources"] = list(map(_source_facts, found.lists, found.tallies))
    with context.store.attempt(task) as attempt:
        attempt.write_table("plan", table)
        blocked = sorted(set(hashes(context.recipe.plan))) if is_first else []
        if blocked:
            attempt.write_table("blocked_hashes", pa.table([blocked], schema=BLOCKED_HASHES))
        attempt.commit(planned_rows(table, rows_in), facts)


def _source_facts(source: Source, tally: Tally) -> dict[str, object]:
    """Return the facts of a source, with the number of members that are not rows, if any."""
    facts = {"sha256": source.sha256, "path": source.path, "format": source.format}
    left_out = {name: number for name, number in sorted(tally.items()) if number}
    return {**facts, **({"left_out": left_out} if left_out else {})}
