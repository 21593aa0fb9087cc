"""The curate stage: what needs the whole set. It drops rows with a reason and never moves them between splits."""

from collections import Counter

import pyarrow as pa
from tqdm import tqdm

from corgi.data.filters import placeholders
from corgi.flow.dag import Context
from corgi.settings.clip import CurateSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import SELECTION, Reason, Split
from corgi.tables.store import ShardTask, Store

_SPLIT_RANK = {Split.TEST: 0, Split.VAL: 1, Split.TRAIN: 2}


def run(context: Context) -> list[ShardTask]:
    """Commit one `selection` table a shard: every embedded picture, kept or dropped with a reason."""
    whole = {"download": context.inputs["download"].digest}
    tasks = [
        context.task(embedded.shard, whole, {"embed": [embedded]}) for embedded in context.shards("embed")
    ]
    pending = context.pending(tasks)
    if not pending:
        return tasks
    settings: CurateSettings = context.recipe.curate
    duplicates = (
        exact_duplicates(context.store, context.shards("download")) if settings.exact_duplicates else {}
    )
    quarantined = placeholder_uids(context.store, context.shards("download"), settings.placeholder_min_urls)
    dropped = {
        **dict.fromkeys(duplicates, Reason.EXACT_DUPLICATE),
        **dict.fromkeys(quarantined, Reason.PLACEHOLDER),
    }
    for task in tqdm(pending, desc="curate", unit="shard", mininterval=1.0):
        _commit(context.store, task, settings, dropped)
    return tasks


def exact_duplicates(store: Store, images: list[ShardManifest]) -> dict[str, str]:
    """Return, for every picture whose raw bytes another picture has too and that is not the one kept, the one kept.

    Kept is the copy in test before val before train, so that no train picture is also held out; then the lowest uid.
    """
    best: dict[str, tuple[int, str]] = {}
    seen: list[tuple[str, str]] = []
    for manifest in images:
        for row in store.read(manifest, "images", ["uid", "sha256", "split"]).to_pylist():
            rank = (_SPLIT_RANK[Split(row["split"])], row["uid"])
            seen.append((row["uid"], row["sha256"]))
            best[row["sha256"]] = min(rank, best.get(row["sha256"], rank))
    return {uid: best[sha256][1] for uid, sha256 in seen if best[sha256][1] != uid}


def placeholder_uids(store: Store, images: list[ShardManifest], min_urls: int | None) -> set[str]:
    """Return the pictures whose raw bytes came from at least `min_urls` URLs of the whole set; None finds none."""
    if min_urls is None:
        return set()
    seen = [
        (row["uid"], row["sha256"])
        for manifest in images
        for row in store.read(manifest, "images", ["uid", "sha256"]).to_pylist()
    ]
    frequent = placeholders(Counter(sha256 for _, sha256 in seen), min_urls)
    return {uid for uid, sha256 in seen if sha256 in frequent}


def _commit(store: Store, task: ShardTask, settings: CurateSettings, dropped: dict[str, Reason]) -> None:
    embedded = store.read_shard(task.inputs["embed"][0])
    rows = store.read(embedded, "image_embeddings", ["uid", "similarity"]).to_pylist()
    reasons = [_reason(row["uid"], row["similarity"], settings, dropped) for row in rows]
    table = pa.table(
        {
            "uid": [row["uid"] for row in rows],
            "keep": [reason is None for reason in reasons],
            "reason": reasons,
        },
        schema=SELECTION,
    )
    rejected = Counter(reason for reason in reasons if reason is not None)
    with store.attempt(task) as attempt:
        attempt.write_table("selection", table)
        attempt.commit(RowCounts(rows_in=len(rows), kept=reasons.count(None), rejected=dict(rejected)))


def _reason(
    uid: str, similarity: float | None, settings: CurateSettings, dropped: dict[str, Reason]
) -> Reason | None:
    if uid in dropped:
        return dropped[uid]
    if (
        settings.min_similarity is not None
        and similarity is not None
        and similarity < settings.min_similarity
    ):
        return Reason.LOW_SIMILARITY
    return None
