"""The embeddings in clip-retrieval's layout: row-aligned .npy files of half floats beside Parquet metadata."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corgi.curation.subset import npy_bytes
from corgi.settings.errors import InputError
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import write_file
from corgi.tables.vectors import concatenated, tower_names


def clip_retrieval(run: Run, folder: Path, tower: str | None = None) -> int:
    """Write `img_emb/img_emb_N.npy`, `text_emb/text_emb_N.npy` and `metadata/metadata_N.parquet`, one N a shard.

    A row is a kept picture with its first full caption; pictures without one are left out, as there. Vectors are those of
    one tower, or of all of them concatenated; unit norm. Returns the number of rows.

    Raises:
        InputError: the folder is not empty, or the run has no such tower.

    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; nothing was written; name a new folder")
    shards = list(zip(run.shards("download"), run.shards("embed"), run.shards("curate"), strict=True))
    digits, total = len(str(len(shards))), 0
    for number, (download, embed, curate) in enumerate(shards):
        images = run.store.read(embed, "image_embeddings")
        towers = _towers(images.schema, tower)
        captions = run.store.read(embed, "caption_embeddings")
        words = run.store.read(download, "captions", ["uid", "ordinal", "caption"])
        selection = run.store.read(curate, "selection", ["uid", "keep"])
        kept = set(selection.filter(selection["keep"])["uid"].to_pylist())
        image_rows, caption_rows = _paired(images, captions, kept)
        vectors = {
            "img": concatenated(images.take(pa.array(image_rows, pa.int64())), "image", towers),
            "text": concatenated(captions.take(pa.array(caption_rows, pa.int64())), "text", towers),
        }
        name = str(number).zfill(digits)
        for kind, values in vectors.items():
            path = folder / f"{kind}_emb" / f"{kind}_emb_{name}.npy"
            write_file(path, npy_bytes(values.astype(np.float16)))
        table = _metadata(run, download, words, captions.take(pa.array(caption_rows, pa.int64())))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_file(folder / "metadata" / f"metadata_{name}.parquet", sink.getvalue().to_pybytes())
        total += len(image_rows)
    return total


def _towers(schema: pa.Schema, tower: str | None) -> list[str]:
    held = tower_names(schema)
    if tower is not None and tower not in held:
        raise InputError(
            f"the run has no tower {tower} (it has {', '.join(held)}); nothing was written; name one of these"
        )
    return held if tower is None else [tower]


def _paired(images: pa.Table, captions: pa.Table, kept: set[str]) -> tuple[list[int], list[int]]:
    """Return the rows of kept pictures that have a full caption, and of the first such caption."""
    first: dict[str, int] = {}
    kinds = captions["kind"].to_pylist()
    for row, uid in enumerate(captions["uid"].to_pylist()):
        if kinds[row] == "full":
            first.setdefault(uid, row)
    chosen = [
        (row, first[uid]) for row, uid in enumerate(images["uid"].to_pylist()) if uid in kept and uid in first
    ]
    return [image for image, _ in chosen], [caption for _, caption in chosen]


def _metadata(run: Run, download: ShardManifest, words: pa.Table, captions: pa.Table) -> pa.Table:
    """Return uid, url, caption and sizes of the exported rows, in their order."""
    text = {(row["uid"], row["ordinal"]): row["caption"] for row in words.to_pylist()}
    keys = zip(captions["uid"].to_pylist(), captions["ordinal"].to_pylist(), strict=True)
    columns = ["uid", "url", "original_width", "original_height"]
    facts = {row["uid"]: row for row in run.store.read(download, "images", columns).to_pylist()}
    rows = [{"caption": text[key], **facts[key[0]]} for key in keys]
    fields = [("caption", pa.string()), ("uid", pa.string()), ("url", pa.string())]
    sizes = [("original_width", pa.int32()), ("original_height", pa.int32())]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields + sizes))
