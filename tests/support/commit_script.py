"""A bare process that commits a stage: six shards of one table and one file, one of them with rejected rows, then the stage.

`python -m tests.support.commit_script ROOT`; killed anywhere and run again, it must end as if never killed.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store
from tests.support.waiting import PATIENCE_S

STAGE = "toy"
NUM_SHARDS = 6
KEY = "0" * 32


def task(root: str, shard: int, key: str | None = None) -> ShardTask:
    """Return the task of one shard."""
    return ShardTask(root, STAGE, f"{shard:05d}", key or f"{shard:032x}", 1, "code", {"toy": {}})


def table(shard: int) -> pa.Table:
    """Return what a shard holds: four keys nobody else holds, as vectors and text."""
    keys = [f"{shard}-{row}" for row in range(4)]
    vectors = pa.array([[float(shard), float(row)] for row in range(4)], pa.list_(pa.float16(), 2))
    return pa.table({"uid": keys, "vector": vectors})


def commit(store: Store, one: ShardTask) -> None:
    """Commit one shard."""
    shard = int(one.shard)
    with store.attempt(one) as attempt:
        attempt.write_table("rows", table(shard))
        attempt.write_bytes("note", ".json", f'{{"shard": {shard}}}\n'.encode())
        attempt.commit(
            RowCounts(rows_in=4 + shard, kept=4, rejected={Reason.TIMEOUT: shard} if shard else {})
        )


def race(root: str, barrier: Any, num_rounds: int) -> None:
    """Commit one shard after another at the same moment as whoever else waits at the barrier."""
    store = Store(root)
    for number in range(num_rounds):
        with store.attempt(task(root, 1, key=f"{number:032x}")) as attempt:
            attempt.write_bytes("note", ".txt", str(os.getpid()).encode())
            barrier.wait(timeout=PATIENCE_S)
            attempt.commit(RowCounts(rows_in=1, kept=1))


def repeat(folder: str, num_rounds: int) -> None:
    """Commit the whole stage again and again, each time under another root."""
    for number in range(num_rounds):
        main(f"{folder}/{number}")


def main(root: str) -> None:
    """Commit the shards that are not there yet, then close the stage if it is open."""
    store = Store(root)
    tasks = [task(root, shard) for shard in range(NUM_SHARDS)]
    for one in tasks:
        if store.shard(STAGE, one.key) is None:
            commit(store, one)
    if store.stage(STAGE, KEY) is None:
        shards = [found for one in tasks if (found := store.shard(STAGE, one.key)) is not None]
        entries = tuple(ShardEntry(shard=m.shard, path=m.path, digest=m.digest) for m in shards)
        rows = sum((m.rows for m in shards), RowCounts(rows_in=0, kept=0))
        store.close(
            StageManifest(
                stage=STAGE,
                key=KEY,
                version=1,
                code="code",
                commit=None,
                settings={},
                inputs={},
                shards=entries,
                rows=rows,
            )
        )


def content(root: str | Path) -> dict[str, list[object]]:
    """Return everything a reader of the closed stage sees, and nothing of attempt names."""
    store = Store(root)
    closed = store.stage(STAGE, KEY)
    assert closed is not None
    shards = store.shards(closed)
    return {
        "digests": [closed.digest, *(m.digest for m in shards)],
        "rows": [row for m in shards for row in store.read(m, "rows").to_pylist()],
        "notes": [store.path(m, "note").read_text() for m in shards],
        "counts": [closed.rows.model_dump(mode="json")],
    }


if __name__ == "__main__":
    main(sys.argv[1])
