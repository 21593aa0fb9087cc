"""The download stage of a run over precomputed embeddings: planned rows become rows of `images` that have no image."""

import pyarrow as pa

from corgi.download.carried import amended, commit_tables
from corgi.download.planned import Outcome
from corgi.download.rules import check_captions, rules_of
from corgi.download.shard_tables import ShardTables, shard_tables
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.imaging.decode import StoredImage
from corgi.settings.data import DownloadSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.rejection import Rejection
from corgi.tables.schema import IMAGES, Reason
from corgi.tables.store import ShardTask, Store

_NAMED = ("uid", "url", "group", "split", "additional")
_FACTS = ("planned", "kept", "rejected", "captions_left_out")
_ELSEWHERE = StoredImage(b"", 0, 0, 0, 0, "", "", "", "")


def run(context: Context) -> list[ShardTask]:
    """Commit `images`, `captions` and `ledger` of every shard of the plan: nothing is fetched."""
    tasks = context.partitioned()
    settings: DownloadSettings = context.recipe.download
    pool = Pool(settings.num_actors, settings.cpus_per_actor)
    make_pending(context, ListedShards, tasks, pool, "download")
    return tasks


class ListedShards:
    """Make shards of `images` with one row per vector; every column about the image itself is null."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Check the captions of one shard of the plan and commit its rows."""
        store = Store(task.root)
        rules = rules_of(DownloadSettings.model_validate(task.settings["download"]).filter)
        (path,) = task.inputs["plan"]
        plan = store.read(store.read_shard(path), "plan")
        outcomes: list[Outcome] = []
        for reason, captions in zip(plan["reason"].to_pylist(), plan["captions"].to_pylist(), strict=True):
            settled = Rejection(Reason(reason), "settled by the plan") if reason else None
            rejection = settled or check_captions([entry["caption"] for entry in captions or ()], rules)
            outcomes.append(rejection or _ELSEWHERE)
        tables = amended(store, task, _without_images(shard_tables(plan, outcomes, rules)))
        with store.attempt(task) as attempt:
            return commit_tables(attempt, tables)


def _without_images(tables: ShardTables) -> ShardTables:
    images = tables.images
    columns = [
        images[field.name] if field.name in _NAMED else pa.nulls(images.num_rows, field.type)
        for field in IMAGES
    ]
    facts = {name: tables.facts[name] for name in _FACTS}
    return ShardTables(pa.table(columns, schema=IMAGES), tables.captions, tables.ledger, tables.rows, facts)
