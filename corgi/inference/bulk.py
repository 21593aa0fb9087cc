"""Pictures of many captions as tables: a file of prompts in, shards of pictures out, which are committed one by one and resumed by key."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from corgi.flow.cluster import connect
from corgi.flow.code import code_digest, git_commit
from corgi.flow.shards import Pool, make_shards
from corgi.inference.painter import PICTURES, PROMPTS, Painter
from corgi.inference.prompt_files import Prompt, read_prompts
from corgi.inference.prompts import MAX_SEED, check_seeds
from corgi.inference.run_models import models_digest, shards_of
from corgi.settings.errors import InputError
from corgi.settings.painting import FinishSettings, PaintSettings
from corgi.settings.recipe import Recipe
from corgi.settings.section import digest
from corgi.tables.manifest import RowCounts, ShardEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store

READ, PAINTED = "prompts", "pictures"
"""The two stages of a bulk generation, and the names of their shards' tables."""
INDEX = "tables.json"
"""File in the result's folder that lists the tables of pictures and the ledgers."""
PROMPTS_VERSION, PICTURES_VERSION = 1, 1


@dataclass(frozen=True)
class Bulk:
    """The parameters of a bulk generation: the run, the file of prompts, and how they are painted."""

    run: str
    prompts: str
    """Path or URI of a .txt, .csv, .tsv or .parquet file."""
    column: str
    n: int
    seed: int
    asked: PaintSettings
    finish: FinishSettings
    rows_per_shard: int
    """Rows of the file per shard; it affects the result, since batches start at a shard's first row."""
    pool: Pool


def paint_tables(bulk: Bulk, out: Run) -> StageManifest:
    """Paint the captions that are not committed yet and return the closed stage, which `out` points to.

    Picture i of row r has the seed `seed` + r n + i, which does not depend on shards or workers.

    Raises:
        InputError: the run or the file cannot be used, or the seeds are outside 0..2^63-1.
        ClusterError, StorageError: as for a pipeline.

    """
    check_seeds(bulk.n, bulk.seed)
    run = Run.open(bulk.run)
    models = models_digest(shards_of(run))
    prompts = list(_committed_prompts(bulk, out.store))
    _check_last_seed(bulk, sum(manifest.rows.rows_in for manifest in prompts))
    tasks = [_task(bulk, out.store, models, manifest) for manifest in prompts]
    done = out.store.committed(PAINTED, [task.key for task in tasks])
    pending = [task for task in tasks if task.key not in done]
    if pending:
        connect(Recipe(name=PAINTED, root=out.store.location))
        make_shards(
            Painter, {"run": f"{run.store.location}/{run.name}", **_manner(bulk)}, pending, bulk.pool, "paint"
        )
    return _close(bulk, out, tasks)


def _manner(bulk: Bulk) -> dict[str, object]:
    """Return how pictures are painted, as JSON."""
    return {"asked": bulk.asked.model_dump(mode="json"), "finish": bulk.finish.model_dump(mode="json")}


def _committed_prompts(bulk: Bulk, store: Store) -> Iterator[ShardManifest]:
    """Yield the shards of the file's rows in order; each is committed unless the same rows were committed before."""
    rows = read_prompts(bulk.prompts, bulk.column)
    number = 0
    while block := list(islice(rows, bulk.rows_per_shard)):
        table = _prompt_table(block)
        key = digest(
            {"stage": READ, "version": PROMPTS_VERSION, "shard": number, "rows": _rows_digest(table)}
        )
        committed = store.shard(READ, key)
        yield committed or _commit_prompts(store, f"{number:05d}", key, table)
        number += 1
    if number == 0:
        raise InputError(
            f"{bulk.prompts} has no rows; nothing was painted; name a file with one prompt per row"
        )


def _prompt_table(block: Sequence[Prompt]) -> pa.Table:
    rows = [
        {
            "row": prompt.row,
            "caption": None if prompt.fault else prompt.caption,
            "reason": None if prompt.fault is None else str(prompt.fault.reason),
            "detail": None if prompt.fault is None else prompt.fault.what,
        }
        for prompt in block
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def _rows_digest(table: pa.Table) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for row in table.to_pylist():
        hasher.update(json.dumps(row).encode())
    return hasher.hexdigest()


def _commit_prompts(store: Store, shard: str, key: str, table: pa.Table) -> ShardManifest:
    task = ShardTask(store.location, READ, shard, key, PROMPTS_VERSION, code_digest(), {})
    with store.attempt(task) as attempt:
        attempt.write_table(READ, table)
        return attempt.commit(RowCounts(rows_in=table.num_rows, kept=table.num_rows))


def _task(bulk: Bulk, store: Store, models: str, read: ShardManifest) -> ShardTask:
    """Return the task of one shard; its key is the digest of models, settings, seeds and rows."""
    payload = {"n": bulk.n, "seed": bulk.seed}
    meaning = {
        "stage": PAINTED,
        "version": PICTURES_VERSION,
        "models": models,
        "prompts": read.digest,
        **payload,
        **_manner(bulk),
    }
    return ShardTask(
        root=store.location,
        stage=PAINTED,
        shard=read.shard,
        key=digest(meaning),
        version=PICTURES_VERSION,
        code=code_digest(),
        settings=_manner(bulk),
        inputs={READ: (read.path,)},
        payload=payload,
    )


def _check_last_seed(bulk: Bulk, rows: int) -> None:
    last = bulk.seed + rows * bulk.n - 1
    if last > MAX_SEED:
        raise InputError(
            f"seed={bulk.seed} with {rows} rows needs seeds outside 0..{MAX_SEED}; nothing was painted; choose a smaller seed"
        )


def _close(bulk: Bulk, out: Run, tasks: Sequence[ShardTask]) -> StageManifest:
    """Close the stage over its shards, point the result to it and list its tables."""
    paths = out.store.committed(PAINTED, [task.key for task in tasks])
    shards = list(out.store.each_of([paths[task.key] for task in tasks], out.store.read_shard))
    rows = sum((shard.rows for shard in shards), RowCounts(rows_in=0, kept=0))
    entries = tuple(ShardEntry.of(shard) for shard in shards)
    manifest = StageManifest(
        stage=PAINTED,
        key=digest([entry.digest for entry in entries]),
        version=PICTURES_VERSION,
        code=code_digest(),
        commit=git_commit(),
        settings=_manner(bulk),
        inputs={},
        shards=entries,
        rows=rows,
    )
    closed = out.store.stage(PAINTED, manifest.key)
    if closed is None:
        closed = out.store.close(out.store.indexed(manifest, [ListedShard.of(shard) for shard in shards]))
    out.note(name=out.name, order=[PAINTED])
    out.record(PAINTED, closed)
    out.publish(INDEX, (json.dumps(index_of(out.store, shards), indent=1) + "\n").encode())
    return closed


def index_of(store: Store, shards: Sequence[ShardManifest]) -> dict[str, list[str]]:
    """Return the paths or URLs of the tables, in the order of the rows: one of pictures and one ledger per shard."""
    return {
        table: [store.storage.locate(store.file_name(shard, store.entry(shard, table))) for shard in shards]
        for table in (PAINTED, "ledger")
    }


__all__ = ["INDEX", "PAINTED", "PICTURES", "Bulk", "index_of", "paint_tables"]
