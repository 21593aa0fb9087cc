"""Export of the embeddings in clip-retrieval's layout: row-aligned .npy files of half floats, with Parquet metadata."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corgi.curation.subset import npy_bytes
from corgi.settings.errors import InputError
from corgi.tables.embedded import EmbeddedShard, first_rows
from corgi.tables.run import Run
from corgi.tables.store import write_file
from corgi.tables.vectors import concatenated, tower_names


def clip_retrieval(run: Run, folder: Path, tower: str | None = None) -> int:
    """Write `img_emb/img_emb_N.npy`, `text_emb/text_emb_N.npy` and `metadata/metadata_N.parquet`, one N per shard.

    A row is a kept picture with its first full caption. Pictures without one are left out, as in clip-retrieval, and so are
    those whose captions may not be used for training. Vectors have unit norm; they are those of one tower, or of all towers
    concatenated. Returns the number of rows.

    Raises:
        InputError: the folder is not empty, or the run has no such tower.

    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; nothing was written; name a new folder")
    shards = run.embedded()
    digits, total = len(str(len(shards))), 0
    for number, shard in enumerate(shards):
        images, captions = shard.captioned_images(), shard.captions()
        towers = _towers(images.schema, tower)
        first = first_rows(zip(captions["uid"].to_pylist(), captions["kind"].to_pylist(), strict=True))
        captions = captions.take(
            pa.array([first[uid, "full"] for uid in images["uid"].to_pylist()], pa.int64())
        )
        name = str(number).zfill(digits)
        for kind, table, column in (("img", images, "image"), ("text", captions, "text")):
            path = folder / f"{kind}_emb" / f"{kind}_emb_{name}.npy"
            write_file(path, npy_bytes(concatenated(table, column, towers).astype(np.float16)))
        sink = pa.BufferOutputStream()
        pq.write_table(_metadata(shard, captions), sink)
        write_file(folder / "metadata" / f"metadata_{name}.parquet", sink.getvalue().to_pybytes())
        total += images.num_rows
    return total


def _towers(schema: pa.Schema, tower: str | None) -> list[str]:
    held = tower_names(schema)
    if tower is not None and tower not in held:
        raise InputError(
            f"the run has no tower {tower} (it has {', '.join(held)}); nothing was written; name one of these"
        )
    return held if tower is None else [tower]


def _metadata(shard: EmbeddedShard, captions: pa.Table) -> pa.Table:
    """Return uid, url, caption and sizes of the exported rows, in their order."""
    text = shard.caption_texts()
    keys = zip(captions["uid"].to_pylist(), captions["ordinal"].to_pylist(), strict=True)
    columns = ["uid", "url", "original_width", "original_height"]
    facts = {row["uid"]: row for row in shard.facts(columns).to_pylist()}
    rows = [{"caption": text[key], **facts[key[0]]} for key in keys]
    fields = [("caption", pa.string()), ("uid", pa.string()), ("url", pa.string())]
    sizes = [("original_width", pa.int32()), ("original_height", pa.int32())]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields + sizes))
