"""The index stage: the codes of all vectors, computed shard by shard on Ray, so that a server only has to read them."""

# pyright: reportMissingTypeStubs=false
# pyarrow and faiss have no types

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from safetensors.numpy import load_file, save

from corgi.curation.domains import registered_domains
from corgi.flow.context import Context
from corgi.flow.shards import Pool, make_pending
from corgi.serving.codes import HALF_ROWS, Codec, sample_step
from corgi.tables.embedded import EmbeddedShard, vectors_of
from corgi.tables.manifest import Listing, RowCounts, ShardManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store
from corgi.tables.vectors import tower_widths

CODEC, ROWS = "codec", "rows"
INPUTS = ("download", "embed", "curate")
SAMPLED_SHARDS = 64
"""Largest number of shards to whose vectors the codec is fitted."""


def run(context: Context) -> list[ShardTask]:
    """Commit the shard `codec`, then one `rows` table per shard of embed."""
    pool = Pool(context.recipe.pack.num_actors, context.recipe.pack.cpus_per_actor)
    codec = context.task(CODEC)
    embed = {"embed": context.inputs["embed"].path}
    make_pending(context, CodecShards, [codec], Pool(), "index, codec", embed)
    made = context.store.read_shard(context.store.committed(codec.stage, [codec.key])[codec.key])
    shards = {name: {entry.shard: entry for entry in context.entries(name)} for name in INPUTS}
    tasks = [
        context.task(shard, inputs={**{name: [shards[name][shard]] for name in INPUTS}, CODEC: [made]})
        for shard in shards["embed"]
    ]
    make_pending(context, IndexShards, tasks, pool, "index")
    return [codec, *tasks]


class CodecShards:
    """Fits the codec to a sample of all vectors, in one actor."""

    def __init__(self, embed: str) -> None:
        """Take the path of the manifest of the closed embed stage."""
        self._embed = embed

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `codec`."""
        store = Store(task.root)
        codec = fitted(store, store.listed(store.read_stage(self._embed)))
        data = save({"ranges": codec.ranges, "centres": codec.centres, "dim": np.array([codec.dim])})
        with store.attempt(task) as attempt:
            attempt.write_bytes(CODEC, ".safetensors", data)
            facts = {"bytes per vector": codec.code_bytes, "lists": len(codec.centres)}
            return attempt.commit(RowCounts(rows_in=0, kept=0), facts)


class IndexShards:
    """Ray Data actor: encodes the rows of one shard per call."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `rows`."""
        store = Store(task.root)
        paths = {name: task.inputs[name][0] for name in INPUTS}
        shard = EmbeddedShard(task.root, task.shard, paths["embed"], paths["curate"], paths["download"])
        table = rows_of_shard(shard, read_codec(store, store.read_shard(task.inputs[CODEC][0])))
        with store.attempt(task) as attempt:
            attempt.write_table(ROWS, table)
            return attempt.commit(RowCounts(rows_in=table.num_rows, kept=table.num_rows))


def read_codec(store: Store, shard: Listing) -> Codec:
    """Return the codec that a shard contains."""
    arrays = load_file(store.path(shard, CODEC))
    return Codec(int(arrays["dim"][0]), arrays["ranges"], arrays["centres"])


def fitted(store: Store, embedded: Sequence[ListedShard]) -> Codec:
    """Return the codec for the vectors of all shards; no vector is read if there are so few that half floats are used.

    A sample is read from at most `SAMPLED_SHARDS` shards, evenly spaced: shards are ranges of hashes, so each is a random sample of rows.
    """
    total = sum(shard.kept for shard in embedded)
    if total <= HALF_ROWS:
        dim = sum(tower_widths(store.schema(embedded[0], "image_embeddings")).values())
        return Codec(dim, np.empty(0, np.float32), np.empty((0, dim), np.float32))
    chosen = embedded[:: -(-len(embedded) // SAMPLED_SHARDS)]
    step = sample_step(sum(shard.kept for shard in chosen))
    parts = [
        vectors_of(store.read(shard, "image_embeddings"), "image")[::step].astype(np.float16)
        for shard in chosen
    ]
    return Codec.fitted(np.concatenate(parts), total)


def rows_of_shard(shard: EmbeddedShard, codec: Codec) -> pa.Table:
    """Return what search needs of each embedded image of a shard, in the table's order.

    Raises:
        AssertionError: the shard's tables do not have the same rows.

    """
    store = Store(shard.root)
    images = store.read(store.read_shard(shard.embed), "image_embeddings")
    selection = store.read(store.read_shard(shard.curate), "selection", ["uid", "keep", "reason"])
    facts = shard.facts(["uid", "url"])
    if not images["uid"].equals(selection["uid"]) or not images["uid"].equals(facts["uid"]):
        raise AssertionError(f"shard {shard.name}: tables do not have the same rows")
    vectors = vectors_of(images, "image")
    return pa.table(
        {
            "uid": images["uid"],
            "split": images["split"],
            "keep": selection["keep"],
            "reason": selection["reason"],
            "domain": pa.array(registered_domains(facts["url"].to_pylist()), pa.string()),
            "list": pa.array(codec.lists_of(vectors), pa.int32()),
            "code": _binary(codec.encode(vectors)),
        }
    )


def _binary(codes: UInt8[np.ndarray, "rows bytes"]) -> pa.Array:
    kind = pa.binary(codes.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(codes), [None, pa.py_buffer(codes.tobytes())])


def codes_of(column: pa.ChunkedArray) -> UInt8[np.ndarray, "rows bytes"]:
    """Return a column of codes as an array."""
    width = column.type.byte_width
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, width)[
            chunk.offset : chunk.offset + len(chunk)
        ]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty((0, width), np.uint8)
