"""The plan stage: one partitioned pass over the sources determines identities, captions, groups, splits and shards.

The pass writes rows to private files by ranges of their URL's hash, with one task per part of the sources; then one task per
range merges and commits its shards. A list that is not large is planned by this process only.
"""

import shutil
from pathlib import Path

from corgi.flow import screen
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.executor import is_in_process
from corgi.flow.tasks import Tasks, values_of
from corgi.planning.blocklist import Blocklist, digests
from corgi.planning.bucket import Pass, commit_shards, shards_of
from corgi.planning.partition import num_buckets, num_bytes, parts_of, spill
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.settings.section import digest
from corgi.sources.samples import MEANINGS, Tally
from corgi.sources.sources import Source, sources
from corgi.sources.unread import unread
from corgi.storage.errors import storage_full
from corgi.tables.store import ShardTask

MAX_SHARDS = 2**20
TASKS_FROM_BYTES = 2**31
"""Bytes of rows above which a list is planned by tasks."""
_MOST_PARTS = 64


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
    by_tasks = num_bytes(lists) > TASKS_FROM_BYTES and not is_in_process()
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if by_tasks:
            connect(context.recipe)
        buckets = num_buckets(lists)
        num_rows, tallies = _spilled(lists, settings, folder, buckets, by_tasks)
        _check_rows(num_rows, lists, settings)
        _tell_left_out(settings, tallies)
        num_shards = min(MAX_SHARDS, -(-num_rows // settings.number_sample_per_shard))
        meaning = {"sources": [source.meaning for source in lists], "blocked": blocked}
        payload = {"content": digest(meaning), "num_shards": num_shards}
        tasks = [context.task(name, payload) for name in names_of(num_shards)]
        found = Pass(lists, tallies, folder, buckets, num_shards, settings, blocklist)
        _commit_all(context.pending(tasks), found, by_tasks)
    except OSError as error:
        storage_full(error, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tasks


def names_of(num_shards: int) -> list[str]:
    """Return the names of the shards: numbers with five digits, or more if five are too few."""
    digits = max(5, len(str(num_shards - 1)))
    return [f"{shard:0{digits}d}" for shard in range(num_shards)]


def _spilled(
    lists: list[Source], settings: PlanSettings, folder: Path, buckets: int, by_tasks: bool
) -> tuple[int, list[Tally]]:
    """Write all rows to their buckets; return their number, and counts of each source's members that are not rows."""
    parts = parts_of(lists, _MOST_PARTS if by_tasks else 1)
    arguments = [(part, settings, folder / f"{at:03d}", buckets) for at, part in enumerate(parts)]
    if by_tasks:
        calls = Tasks()
        made = values_of([calls.start(spill, *argument) for argument in arguments], "plan: rows")
    else:
        made = [spill(*argument) for argument in arguments]
    tallies = {at: tally for _, found in made for at, tally in found.items()}
    return sum(number for number, _ in made), [tallies[at] for at in range(len(lists))]


def _check_rows(num_rows: int, lists: list[Source], settings: PlanSettings) -> None:
    if num_rows == 0:
        raise InputError(
            f"plan.input: {', '.join(settings.input)} has no rows; nothing was started; name a list with URLs"
        )
    if sources(settings) != lists:
        raise InputError("plan.input changed while it was read; nothing is lost; run the same command again")


def _tell_left_out(settings: PlanSettings, tallies: list[Tally]) -> None:
    """Show which files of the input are not read, in one line per folder, and which members are not rows, in one line."""
    for folder in unread(settings):
        screen.current().say(folder.line())
    left_out = +sum(tallies, Tally())
    if left_out:
        parts = [f"{MEANINGS[name]} ({number})" for name, number in sorted(left_out.items())]
        screen.current().say(f"plan: in addition to the rows: {', '.join(parts)}")


def _commit_all(pending: list[ShardTask], found: Pass, by_tasks: bool) -> None:
    waiting = {int(task.shard): task for task in pending}
    if not by_tasks:
        with screen.bar("plan", len(pending), "shard") as bar:
            commit_shards(found, range(found.num_shards), waiting, bar.reach)
        return
    calls = Tasks()
    shared = calls.start(_same, found)
    jobs = [
        (shards, {shard: waiting[shard] for shard in shards if shard in waiting})
        for shards in shards_of(found)
    ]
    values_of([calls.start(commit_shards, shared, *job) for job in jobs if job[1]], "plan")


def _same(found: Pass) -> Pass:
    return found
