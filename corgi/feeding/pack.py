"""The pack stage: gathers the vectors that trainings read from embeddings and selection, once, shard by shard on Ray."""

# pyright: reportMissingTypeStubs=false
# pyarrow has no types

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from corgi.feeding.captions import MAX_CAPTIONS
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.settings.data import PackSettings
from corgi.tables.embedded import EmbeddedShard, rows_of, vectors_of
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.row_groups import cut
from corgi.tables.schema import Split, packed
from corgi.tables.store import ShardTask, Store

ROWS_TABLE = "rows"
GROUPS_FACT, WITHHELD_FACT = "groups", "withheld"
"""Facts of a shard: its row groups as [split, rows, rows with a caption]; the number of train pictures whose captions are withheld."""
SPLITS = (Split.TRAIN, Split.VAL, Split.TEST)
"""The order of a shard's rows; within a split they are sorted by uid, as in every table."""


def run(context: Context) -> list[ShardTask]:
    """Commit one `rows` table per shard."""
    tasks = context.partitioned()
    settings: PackSettings = context.recipe.pack
    make_pending(context, PackShards, tasks, Pool(settings.num_actors, settings.cpus_per_actor), "pack")
    return tasks


class PackShards:
    """Ray Data actor: gathers the rows of one shard per call."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit the `rows` table: each row group contains rows of one split."""
        (embed,), (curate,) = task.inputs["embed"], task.inputs["curate"]
        shard = EmbeddedShard(task.root, task.shard, embed, curate)
        table, groups = packed_rows(shard)
        facts = {GROUPS_FACT: [list(group) for group in groups], WITHHELD_FACT: _withheld(shard)}
        with Store(task.root).attempt(task) as attempt:
            facts |= attempt.write_row_groups(ROWS_TABLE, table, [group.rows for group in groups])
            return attempt.commit(RowCounts(rows_in=table.num_rows, kept=table.num_rows), facts)


class Group(NamedTuple):
    """A row group of the training table."""

    split: str
    rows: int
    captioned: int
    """Number of rows with a full caption that may be used for training."""


def packed_rows(shard: EmbeddedShard) -> tuple[pa.Table, list[Group]]:
    """Return a shard's rows in the order of the training table, and their row groups."""
    images, captions = shard.images(), shard.captions()
    order = in_order(images["split"].to_pylist())
    images = images.take(pa.array(order))
    image, text = (vectors_of(*of).astype(np.float16) for of in ((images, "image"), (captions, "text")))
    uids: list[str] = images["uid"].to_pylist()
    learned = set(shard.learned(captions).to_pylist())
    owner = rows_of(captions["uid"].to_pylist(), [uid if uid in learned else None for uid in uids])
    kind = np.asarray(captions["kind"])
    rows = {name: _first_of_each(owner, kind == name, len(uids)) for name in ("full", "coarse")}
    columns = {"uid": images["uid"], "split": images["split"], "image": _vectors(image)}
    columns |= {name: _ragged(offsets, _vectors(text[chosen])) for name, (chosen, offsets) in rows.items()}
    columns |= {
        f"{name}_row": _ragged(offsets, pa.array(chosen, pa.int32()))
        for name, (chosen, offsets) in rows.items()
    }
    table = pa.table(columns, schema=packed(image.shape[1]))
    return table, _groups(table["split"].to_pylist(), np.diff(rows["full"][1]) > 0)


def in_order(split: list[str]) -> Int[np.ndarray, "rows"]:
    """Return the indices of rows, which are sorted by uid, in the order of the training table: by split, then by uid."""
    rank = {name.value: number for number, name in enumerate(SPLITS)}
    return np.argsort(np.array([rank[name] for name in split], np.int64), kind="stable")


def sizes_of(split: list[str]) -> list[int]:
    """Return the number of rows of each row group of a table in the order of the training table."""
    count = Counter(split)
    return [size for name in SPLITS for size in cut(count[name.value])]


def _groups(split: list[str], captioned: np.ndarray) -> list[Group]:
    groups, first = list[Group](), 0
    for size in sizes_of(split):
        groups.append(Group(split[first], size, int(captioned[first : first + size].sum())))
        first += size
    return groups


def _first_of_each(
    owner: Int[np.ndarray, "captions"], wanted: np.ndarray, num_rows: int
) -> tuple[Int[np.ndarray, "chosen"], Int[np.ndarray, "offsets"]]:
    """Return the indices of the first `MAX_CAPTIONS` wanted captions of each row, row by row, and where each row's begin among these."""
    mine = np.flatnonzero(wanted & (owner >= 0))
    mine = mine[np.argsort(owner[mine], kind="stable")]
    counts = np.bincount(owner[mine], minlength=num_rows)
    ordinal = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, MAX_CAPTIONS))])
    return mine[ordinal < MAX_CAPTIONS], offsets


def _ragged(offsets: Int[np.ndarray, "offsets"], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _vectors(values: Float[np.ndarray, "rows dim"]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _withheld(shard: EmbeddedShard) -> int:
    """Return the number of kept train pictures whose captions may not be used for training."""
    withheld = shard.withheld()
    return (
        sum(uid in withheld for uid in shard.images(Split.TRAIN, ["uid"])["uid"].to_pylist())
        if withheld
        else 0
    )
