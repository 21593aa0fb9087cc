"""The plan stage: one partitioned pass over the list gives identities, captions, groups, splits and shards.

The pass spills rows to at most 256 buckets of neighbouring shards; each bucket is then merged alone, so memory holds one.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from corgi.data.amend import without
from corgi.data.identity import canonical_url, shard_of, split_of, uid
from corgi.data.source import Source, batches, sources
from corgi.flow.dag import Context
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import PLAN, Reason
from corgi.tables.store import ShardTask, storage_full
from corgi.tables.taken_down import read_taken_down

_SPILL = pa.schema(
    [(name, pa.string()) for name in ("uid", "url", "caption", "kind", "group", "source")]
    + [("row", pa.int64()), ("shard", pa.int32())]
)
_MAX_SHARDS = 65_536
_MAX_BUCKETS = 256


def run(context: Context) -> list[ShardTask]:
    """Commit one `plan` table a shard: a row a distinct URL, sorted by uid.

    Raises:
        InputError: the list is empty, cannot be read, or changes while it is read.
        StorageError: the disk is full.

    """
    settings: PlanSettings = context.recipe.plan
    lists = sources(settings)
    num_rows = sum(batch.num_rows for source in lists for batch in batches(source, settings))
    if num_rows == 0:
        raise InputError(
            f"plan.input: {', '.join(settings.input)} has no rows; nothing was started; name a list with URLs"
        )
    num_shards = min(_MAX_SHARDS, -(-num_rows // settings.number_sample_per_shard))
    payload = {"sources": [source.meaning for source in lists], "num_shards": num_shards}
    tasks = [context.task(f"{shard:05d}", payload) for shard in range(num_shards)]
    pending = context.pending(tasks)
    spill = context.run.folder / "spill"
    try:
        if pending:
            shutil.rmtree(spill, ignore_errors=True)
            spill.mkdir(parents=True)
            _check_unchanged(_partition(lists, settings, spill, num_shards), num_rows)
            _commit_all(context, pending, spill, lists)
    except OSError as error:
        storage_full(error, spill)
    finally:
        shutil.rmtree(spill, ignore_errors=True)
    return tasks


def _check_unchanged(spilled: int, counted: int) -> None:
    if spilled != counted:
        raise InputError(
            f"plan.input changed while it was read ({counted} rows, then {spilled}); nothing is lost; "
            "run the same command again"
        )


def _bucket(shard: int, num_shards: int) -> int:
    return shard if num_shards <= _MAX_BUCKETS else shard * _MAX_BUCKETS // num_shards


def _partition(lists: list[Source], settings: PlanSettings, spill: Path, num_shards: int) -> int:
    """Append every list row to the spill file of its bucket; return how many rows there were."""
    num_rows = 0
    with ExitStack() as stack:
        paths = [spill / f"{bucket:03d}" for bucket in range(min(_MAX_BUCKETS, num_shards))]
        writers = [stack.enter_context(pq.ParquetWriter(path, _SPILL)) for path in paths]
        for source in lists:
            for part in _identified(source, settings, num_shards):
                _append(part, writers, num_shards)
                num_rows += part.num_rows
    return num_rows


def _commit_all(context: Context, pending: list[ShardTask], spill: Path, lists: list[Source]) -> None:
    by_bucket = groupby(pending, lambda task: _bucket(int(task.shard), task.payload["num_shards"]))
    with tqdm(total=len(pending), desc="plan", unit="shard", mininterval=1.0) as bar:
        for bucket, tasks in by_bucket:
            with pq.ParquetFile(spill / f"{bucket:03d}") as spilled:
                rows = spilled.read()
            shards = rows["shard"].to_numpy()
            for task in tasks:
                _commit(context, task, rows.filter(pa.array(shards == int(task.shard))), lists)
                bar.update()


def _identified(source: Source, settings: PlanSettings, num_shards: int) -> Iterator[pa.Table]:
    first_row = 0
    for batch in batches(source, settings):
        urls = [canonical_url(url or "") for url in batch.column("url").to_pylist()]
        uids = [uid(url) for url in urls]
        groups = [group or url for group, url in zip(batch.column("group").to_pylist(), urls, strict=True)]
        columns = {
            "uid": uids,
            "url": urls,
            "caption": batch.column("caption"),
            "kind": batch.column("kind"),
            "group": groups,
            "source": [source.sha256] * batch.num_rows,
            "row": range(first_row, first_row + batch.num_rows),
            "shard": [shard_of(u, num_shards) for u in uids],
        }
        yield pa.table(
            {name: pa.array(values, type=_SPILL.field(name).type) for name, values in columns.items()}
        )
        first_row += batch.num_rows


def _append(part: pa.Table, writers: list[pq.ParquetWriter], num_shards: int) -> None:
    buckets = np.array([_bucket(shard, num_shards) for shard in part["shard"].to_pylist()])
    order = np.argsort(buckets, kind="stable")
    ordered, edges = part.take(pa.array(order)), np.searchsorted(buckets[order], np.arange(len(writers) + 1))
    for writer, start, stop in zip(writers, edges[:-1], edges[1:], strict=True):
        if stop > start:
            writer.write_table(ordered.slice(start, stop - start))


def _commit(context: Context, task: ShardTask, rows: pa.Table, lists: list[Source]) -> None:
    settings: PlanSettings = context.recipe.plan
    rows = rows.sort_by([("uid", "ascending"), ("source", "ascending"), ("row", "ascending")])
    merged = [_merged(group, settings) for group in _by_uid(rows)]
    with context.store.attempt(task) as attempt:
        table, gone = without(
            pa.Table.from_pylist(merged, schema=PLAN), read_taken_down(context.store.storage)
        )
        attempt.write_table("plan", table)
        splits = {split: sum(row["split"] == split for row in merged) for split in ("train", "val", "test")}
        sources_facts = [{"sha256": source.sha256, "path": str(source.path)} for source in lists]
        attempt.commit(
            RowCounts(
                rows_in=rows.num_rows,
                kept=rows.num_rows - gone,
                rejected={Reason.TAKEN_DOWN: gone} if gone else {},
            ),
            facts={"urls": table.num_rows, **splits, "sources": sources_facts},
        )


def _by_uid(rows: pa.Table) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        if block and block[0]["uid"] != row["uid"]:
            yield block
            block = []
        block.append(row)
    if block:
        yield block


def _merged(rows: list[dict[str, Any]], settings: PlanSettings) -> dict[str, Any]:
    """Return one plan row of all list rows that name one URL; a URL listed under several groups takes the smallest."""
    captions = {
        (row["caption"], row["kind"] or "full"): None
        for row in rows
        if row["caption"] and row["caption"].strip()
    }
    group = min(row["group"] for row in rows)
    return {
        "uid": rows[0]["uid"],
        "url": rows[0]["url"],
        "group": group,
        "split": split_of(group, settings.seed, settings.val_share, settings.test_share),
        "captions": [{"caption": caption, "kind": kind} for caption, kind in captions],
        "sources": [row["source"] for row in rows],
        "rows": [row["row"] for row in rows],
    }
