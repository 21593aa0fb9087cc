"""The embeddings tables: vectors without bad ones, the cosine of each image with its captions, and other scores."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from corgi.clip.scores import Head
from corgi.clip.vectors import Vectors, concatenated, matrix
from corgi.tables.schema import caption_embeddings, image_embeddings


def scored(images: pa.Table, heads: Sequence[Head]) -> pa.Table:
    """Return the image table with one score per head, computed from the vectors as stored."""
    for head in heads:
        values = head.scores(matrix(images[f"{head.ref.tower}/image"]))
        images = images.append_column(f"{head.ref.name}_score", pa.array(values, pa.float32()))
    return images


def similarities(
    images: pa.Table, captions: pa.Table, towers: Sequence[str]
) -> tuple[list[float | None], Float[np.ndarray, "captions"]]:
    """Return each picture's cosine with its best full caption (None without one) and each caption's cosine with its picture.

    With several towers it is the cosine of the concatenated vectors, the mean of the towers' cosines.
    """
    row_of = {uid: row for row, uid in enumerate(images["uid"].to_pylist())}
    rows = np.array([row_of[uid] for uid in captions["uid"].to_pylist()], np.int64)
    pictures, texts = concatenated(images, "image", towers), concatenated(captions, "text", towers)
    cosine = np.einsum("nd,nd->n", pictures[rows], texts)
    best: list[float | None] = [None] * images.num_rows
    for row, kind, value in zip(rows.tolist(), captions["kind"].to_pylist(), cosine.tolist(), strict=True):
        known = best[row]
        if kind == "full" and (known is None or value > known):
            best[row] = value
    return best, cosine


def embedded_tables(
    images: pa.Table, captions: pa.Table, pictures: Vectors, texts: Vectors
) -> dict[str, pa.Table]:
    """Return both tables without the rows of bad vectors; the captions of a dropped picture are dropped too."""
    good = np.flatnonzero(pictures.is_good())
    image_table = _table(images.select(["uid", "split"]).take(good), pictures.columns("image", good))
    known = set(image_table["uid"].to_pylist())
    has_picture = np.array([uid in known for uid in captions["uid"].to_pylist()], bool)
    kept = np.flatnonzero(texts.is_good() & has_picture)
    caption_table = _table(
        captions.select(["uid", "ordinal", "kind"]).take(kept), texts.columns("text", kept)
    )
    best, cosine = similarities(image_table, caption_table, list(pictures.dims))
    image_table = image_table.append_column("similarity", pa.array(best, pa.float32()))
    caption_table = caption_table.append_column("similarity", pa.array(cosine, pa.float32()))
    return {
        "image_embeddings": image_table.cast(image_embeddings(pictures.dims)),
        "caption_embeddings": caption_table.cast(caption_embeddings(texts.dims)),
    }


def _table(named: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, values in columns.items():
        named = named.append_column(name, values)
    return named
