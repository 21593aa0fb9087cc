"""The curate stage: rules that need the whole set. It drops rows with a reason and never moves them between splits."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from corgi.curation.block import Block, BlockPlan, Wanted, block_plans, load_block
from corgi.curation.judge import judge
from corgi.curation.parts import call_memory, num_parts, part_rows
from corgi.curation.precedence import TRAIN
from corgi.curation.whole_set import KEPT, REASONS, Reasons, WholeSet
from corgi.flow.cluster import connect
from corgi.flow.context import Context
from corgi.flow.demand import Demand
from corgi.flow.executor import is_in_process
from corgi.flow.shards import check_room
from corgi.flow.tasks import Tasks, values_of
from corgi.settings.clip import CurateSettings
from corgi.settings.errors import InputError
from corgi.tables.manifest import Listing, RowCounts
from corgi.tables.schema import SELECTION
from corgi.tables.split_counts import as_facts, split_counts
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store


def run(context: Context) -> list[ShardTask]:
    """Commit one `selection` table per shard: every embedded picture, kept or dropped with a reason.

    Raises:
        InputError: a rule names a score that the embeddings do not have, or the domain cap cannot be kept.

    """
    whole = {name: context.inputs[name].digest for name in ("download", "embed")}
    embedded = context.listed("embed")
    tasks = [context.task(shard.shard, whole, {"embed": [shard]}) for shard in embedded]
    pending = {task.shard for task in context.pending(tasks)}
    if pending:
        settings: CurateSettings = context.recipe.curate
        _check_scores(context.store, embedded, Wanted.of(settings))
        connect(context.recipe)
        _check_room(settings)
        found = whole_set(context, embedded, settings)
        judge(found, settings)
        _commit(found, tasks, pending, settings)
    return tasks


def _check_room(settings: CurateSettings) -> None:
    """Check that a node of the cluster has the memory for one call.

    Raises:
        ClusterError: no node has it, so a call would wait forever.

    """
    if not is_in_process():
        needed = Demand(
            "curate", 1, 1.0, 0.0, reservations=("curate.task_memory",), memory=settings.task_memory
        )
        check_room(needed)


def whole_set(context: Context, embedded: Sequence[ListedShard], settings: CurateSettings) -> WholeSet:
    """Return the set in blocks in the workers' memory, before any rule is applied."""
    features = {shard.shard: shard.path for shard in context.entries("features")}
    counts = [context.store.entry(shard, "image_embeddings").rows for shard in embedded]
    rows = part_rows(sum(counts), settings)
    plans = block_plans(
        [features[shard.shard] for shard in embedded], [shard.path for shard in embedded], counts, rows
    )
    calls = Tasks(call_memory(sum(counts), settings))
    root, wanted = context.store.location, Wanted.of(settings)
    blocks = [calls.start(load_block, root, plan, wanted) for plan in plans]
    return WholeSet(root, calls, plans, blocks, [], num_parts(sum(counts), settings))


def _check_scores(store: Store, embedded: Sequence[ListedShard], wanted: Wanted) -> None:
    held = store.schema(embedded[0], "image_embeddings").names if wanted.scores else []
    for score in wanted.scores:
        if score not in held:
            known = [name for name in held if name == "similarity" or name.endswith("_score")]
            raise InputError(
                f"curate: the embeddings have no score {score!r} (they have {', '.join(known)}); nothing was changed; "
                "add the head to embed.heads or correct curate.scores"
            )


def _commit(whole: WholeSet, tasks: Sequence[ShardTask], pending: set[str], settings: CurateSettings) -> None:
    calls, first = [], 0
    for plan, block, reasons in zip(whole.plans, whole.blocks, whole.reasons, strict=True):
        chosen = tasks[first : first + len(plan.counts)]
        first += len(plan.counts)
        asked = [task if task.shard in pending else None for task in chosen]
        if any(asked):
            calls.append(
                whole.calls.start(commit_block, block, reasons, asked, settings.model_dump(), whole.facts)
            )
    values_of(calls, "curate")


def commit_block(
    block: Block,
    reasons: Reasons,
    tasks: Sequence[ShardTask | None],
    values: Mapping[str, object],
    facts: Mapping[str, object],
) -> int:
    """Commit the `selection` of those shards of a block that have a task; return their number."""
    settings = CurateSettings.model_validate(values)
    ends = np.cumsum([0, *block.plan.counts]).tolist()
    for number, (task, first, last) in enumerate(zip(tasks, ends, ends[1:], strict=False)):
        if task is not None:
            part, store = slice(first, last), Store(task.root)
            uid = uids_of(store, block.plan, number, block.position[part])
            table = selection(uid, block.split[part], reasons[part], settings)
            commit(store, task, store.read_shard(block.plan.embed[number]), table, facts)
    return sum(task is not None for task in tasks)


def uids_of(store: Store, plan: BlockPlan, number: int, position: Int[np.ndarray, "n"]) -> pa.ChunkedArray:
    """Return the uids of the rows of a block's shard."""
    held = store.read(store.read_shard(plan.features[number]), "features", ["uid"])
    return held["uid"].take(pa.array(position))


def selection(
    uid: pa.ChunkedArray, split: Int[np.ndarray, "n"], reasons: Reasons, settings: CurateSettings
) -> pa.Table:
    """Return the SELECTION table of a shard's rows."""
    names = pa.array([str(reason) for reason in REASONS], pa.string())
    code = pa.array(reasons, mask=reasons == KEPT)
    columns = {
        "uid": uid,
        "keep": reasons == KEPT,
        "reason": names.take(code),
        "captioned": captioned(uid, split, settings),
    }
    return pa.table(columns, schema=SELECTION)


def captioned(
    uids: pa.ChunkedArray, split: Int[np.ndarray, "n"], settings: CurateSettings
) -> Bool[np.ndarray, "n"]:
    """Return which rows keep their captions: all rows of val and test, and a share of train chosen by hash(seed, uid)."""
    if settings.caption_share >= 1:
        return np.ones(len(uids), bool)
    seed = settings.seed.to_bytes(4, "little")
    texts = (seed + uid.encode() for uid in uids.to_pylist())
    draws = np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts), "<u8")
    return (split != TRAIN) | (draws < settings.caption_share * 2.0**64)


def commit(
    store: Store,
    task: ShardTask,
    embedded: Listing,
    selection: pa.Table,
    facts: Mapping[str, object],
) -> None:
    """Commit a shard's `selection`, with the counts by split that every training needs as facts."""
    reasons = selection["reason"].to_pylist()
    rejected = Counter(reason for reason in reasons if reason is not None)
    counts = RowCounts(rows_in=len(reasons), kept=reasons.count(None), rejected=dict(rejected))
    split = store.read(embedded, "image_embeddings", ["split"])["split"]
    captions = store.read(embedded, "caption_embeddings", ["uid", "kind"])
    with store.attempt(task) as attempt:
        attempt.write_table("selection", selection)
        attempt.commit(counts, {**facts, **as_facts(split_counts(split, selection, captions))})
