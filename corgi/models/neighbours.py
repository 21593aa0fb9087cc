"""What a retrieval-conditioned decoder may read: the latents of the train pictures nearest to an embedding."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# faiss and numpy have functions without types

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

_MARGIN = 32
"""Number of rows searched beyond `number`, since near duplicates are among the nearest."""


class Neighbours:
    """Train pictures indexed by their unit embeddings, in memory: 4 bytes per value of an embedding, 2 per value of a latent.

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
        """Index the pictures; `nearest` returns `number` of them per embedding. ValueError if there are fewer."""
        import faiss

        if len(uid) < number:
            raise ValueError(f"{number} neighbours were requested, but there are {len(uid)} train pictures")
        self.uid, self.number, self.max_cosine = list(uid), number, max_cosine
        self.latent = np.concatenate([latent, np.zeros_like(latent[:1])]).astype(np.float16)
        self.index = faiss.IndexFlatIP(embedding.shape[1])
        self.index.add(_unit(embedding))  # pyright: ignore[reportCallIssue]

    def nearest(self, embedding: Float[np.ndarray, "batch dim"]) -> Int[np.ndarray, "batch number"]:
        """Return the rows of the nearest pictures below `max_cosine`, nearest first; -1 where there are too few."""
        num_searched = min(self.number + _MARGIN, len(self.uid))
        while True:
            cosine, row = self.index.search(_unit(embedding), num_searched)  # pyright: ignore[reportCallIssue]
            order = np.argsort(cosine >= self.max_cosine, axis=1, kind="stable")[:, : self.number]
            allowed = np.take_along_axis(cosine, order, 1) < self.max_cosine
            if allowed.all() or num_searched == len(self.uid):
                return np.where(allowed, np.take_along_axis(row, order, 1), -1)
            num_searched = min(4 * num_searched, len(self.uid))

    def latents(self, rows: Int[np.ndarray, "batch number"]) -> Float[np.ndarray, "batch number latent"]:
        """Return the latents of rows, fp16; zeros for -1."""
        return self.latent[rows]

    def names(self, rows: Int[np.ndarray, "batch number"]) -> list[list[str]]:
        """Return the uids of rows; -1 is left out."""
        return [[self.uid[row] for row in chosen if row >= 0] for chosen in rows.tolist()]


def _unit(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    single = np.ascontiguousarray(vectors, dtype=np.float32)
    return single / np.linalg.norm(single, axis=1, keepdims=True).clip(1e-12)
