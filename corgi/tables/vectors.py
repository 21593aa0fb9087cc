"""Vectors from the embeddings tables: half floats on disk, float32 in memory, towers concatenated."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from corgi.settings.errors import InputError
from corgi.unit_vectors import unit_rows


def tower_names(schema: pa.Schema) -> list[str]:
    """Return the towers of an embeddings table, in column order."""
    names = [name.rsplit("/", 1)[0] for name in schema.names if name.endswith(("/image", "/text"))]
    if not names:
        raise InputError(
            "the embeddings table has no tower; nothing was changed; run the embed stage with at least one tower"
        )
    return names


def tower_widths(schema: pa.Schema) -> dict[str, int]:
    """Return the number of dimensions of each tower's image vectors, in column order."""
    return {name: schema.field(f"{name}/image").type.list_size for name in tower_names(schema)}


def matrix(column: pa.ChunkedArray) -> Float[np.ndarray, "rows dim"]:
    """Return a fixed-size-list column as float32."""
    dim = column.type.list_size
    flat = [np.asarray(chunk.flatten()) for chunk in column.chunks]
    return (
        np.concatenate(flat).astype(np.float32).reshape(-1, dim) if flat else np.zeros((0, dim), np.float32)
    )


def concatenated(table: pa.Table, kind: str, towers: Sequence[str]) -> Float[np.ndarray, "rows dim"]:
    """Return unit vectors over all towers: each tower's block has unit norm, and the concatenation is divided by sqrt(number of towers)."""
    blocks = [unit_rows(matrix(table[f"{tower}/{kind}"])) for tower in towers]
    return np.concatenate(blocks, axis=1) / np.float32(np.sqrt(len(blocks)))
