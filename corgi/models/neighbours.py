"""What a retrieval-conditioned decoder may look at: the latents of the train pictures nearest to an embedding."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# faiss and numpy have functions without types

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

_MARGIN = 32
"""Rows searched beyond the wanted ones: near duplicates are among the nearest."""


class Neighbours:
    """Train pictures by their unit embeddings, in memory: 4 bytes per number of an embedding, 2 per number of a latent.

    A picture that is nearer than `max_cosine` is never a neighbour: it is the picture itself or a near duplicate of it, and
    a network that saw it would learn to copy its first neighbour (kNN-Diffusion, Sheynin et al. 2022; RDM, Blattmann et
    al. 2022).
    """

    def __init__(
        self,
        uid: Sequence[str],
        embedding: Float[np.ndarray, "rows dim"],
        latent: Float[np.ndarray, "rows latent"],
        number: int,
        max_cosine: float,
    ) -> None:
        """Index the pictures; `number` of them are given per embedding. ValueError when there are not that many."""
        import faiss

        if len(uid) < number:
            raise ValueError(f"{number} neighbours are asked for and there are {len(uid)} train pictures")
        self.uid, self.number, self.max_cosine = list(uid), number, max_cosine
        self.latent = np.concatenate([latent, np.zeros_like(latent[:1])]).astype(np.float16)
        self.index = faiss.IndexFlatIP(embedding.shape[1])
        self.index.add(_unit(embedding))  # pyright: ignore[reportCallIssue]

    def nearest(self, embedding: Float[np.ndarray, "batch dim"]) -> Int[np.ndarray, "batch number"]:
        """Return the rows of the nearest pictures that may be seen, nearest first; -1 where there are too few."""
        wanted = min(self.number + _MARGIN, len(self.uid))
        while True:
            cosine, row = self.index.search(_unit(embedding), wanted)  # pyright: ignore[reportCallIssue]
            order = np.argsort(cosine >= self.max_cosine, axis=1, kind="stable")[:, : self.number]
            allowed = np.take_along_axis(cosine, order, 1) < self.max_cosine
            if allowed.all() or wanted == len(self.uid):
                return np.where(allowed, np.take_along_axis(row, order, 1), -1)
            wanted = min(4 * wanted, len(self.uid))

    def latents(self, rows: Int[np.ndarray, "batch number"]) -> Float[np.ndarray, "batch number latent"]:
        """Return the latents of rows, fp16; zeros for -1."""
        return self.latent[rows]

    def names(self, rows: Int[np.ndarray, "batch number"]) -> list[list[str]]:
        """Return the uids of rows, -1 left out."""
        return [[self.uid[row] for row in chosen if row >= 0] for chosen in rows.tolist()]


def _unit(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    single = np.ascontiguousarray(vectors, dtype=np.float32)
    return single / np.linalg.norm(single, axis=1, keepdims=True).clip(1e-12)
