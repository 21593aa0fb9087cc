"""How the vectors of an index are stored: as half floats, as bytes, or as bytes in lists around centres (IVF), depending on their number."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import faiss
import numpy as np
from jaxtyping import Float, Int, UInt8

HALF_ROWS = 200_000
"""Number of rows up to which a vector component is a half float, 2 bytes; with more rows it is 1 byte."""
FLAT_ROWS = 2_000_000
"""Number of rows up to which every vector is compared; with more rows vectors are in lists, and only the nearest lists are read."""
PROBED_LISTS = 64
SAMPLED_ROWS = 200_000
"""Largest number of vectors to which the ranges of bytes and the centres are fitted."""
_SAMPLED_PER_LIST, _LEAST_PER_LIST = 50, 39
_BEYOND = 0.1
Vectors = Float[np.ndarray, "rows dim"]


@dataclass(frozen=True, eq=False)
class Codec:
    """Converts vectors to codes and back.

    For bytes `ranges` has the smallest value of each dimension, then the width of each dimension's range; for half floats it is
    empty. `centres` are those of the lists; empty without lists.
    """

    dim: int
    ranges: Float[np.ndarray, "numbers"]
    centres: Float[np.ndarray, "lists dim"]

    @classmethod
    def fitted(cls, sample: Vectors, total: int) -> Self:
        """Return the codec for `total` rows, of which `sample` is a random sample."""
        dim = sample.shape[1]
        ranges, centres = np.empty(0, np.float32), np.empty((0, dim), np.float32)
        if total > HALF_ROWS:
            low, high = (edge.astype(np.float32) for edge in (sample.min(axis=0), sample.max(axis=0)))
            beyond = _BEYOND * (
                high - low
            )  # vectors outside the sample may exceed its range a little, and would be clipped
            ranges = np.concatenate([low - beyond, high - low + 2 * beyond]).astype(np.float32)
        if total > FLAT_ROWS:
            lists = min(num_lists(total), max(1, len(sample) // _LEAST_PER_LIST))
            kmeans = faiss.Kmeans(
                dim, lists, niter=10, spherical=True, seed=0, max_points_per_centroid=_SAMPLED_PER_LIST
            )
            kmeans.train(np.ascontiguousarray(sample, np.float32))
            centres = np.asarray(kmeans.centroids, np.float32)
        return cls(dim, ranges, centres)

    @property
    def code_bytes(self) -> int:
        """Return the number of bytes of one vector."""
        return self.dim * (1 if len(self.ranges) else 2)

    def encode(self, vectors: Vectors) -> UInt8[np.ndarray, "rows bytes"]:
        """Return the codes of unit vectors."""
        if not len(self.ranges):
            return np.ascontiguousarray(vectors, np.float16).view(np.uint8)
        if not len(vectors):
            return np.empty((0, self.code_bytes), np.uint8)
        return self._quantizer().compute_codes(np.ascontiguousarray(vectors, np.float32))  # pyright: ignore[reportCallIssue]

    def decode(self, codes: UInt8[np.ndarray, "rows bytes"]) -> Vectors:
        """Return the vectors that codes represent."""
        if not len(self.ranges):
            return np.ascontiguousarray(codes).view(np.float16).astype(np.float32)
        return self._quantizer().decode(np.ascontiguousarray(codes))  # pyright: ignore[reportCallIssue]

    def lists_of(self, vectors: Vectors) -> Int[np.ndarray, "rows"]:
        """Return the number of each vector's list; -1 without lists."""
        if not len(self.centres):
            return np.full(len(vectors), -1, np.int32)
        return self._lists().assign(np.ascontiguousarray(vectors, np.float32), 1)[:, 0].astype(np.int32)  # pyright: ignore[reportCallIssue]

    def index(
        self,
        sizes: Int[np.ndarray, "lists"],
        parts: Iterable[tuple[UInt8[np.ndarray, "rows bytes"], Int[np.ndarray, "rows"]]],
    ) -> faiss.Index:
        """Return the index of all parts, given as codes and lists; memory is allocated once, for exactly the number of rows in `sizes`.

        `sizes` are the rows per list, or without lists the rows of each part.
        """
        return self._in_lists(sizes, parts) if len(self.centres) else self._flat(int(sizes.sum()), parts)

    def _flat(self, total: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> faiss.Index:
        index: Any = faiss.IndexScalarQuantizer(self.dim, self._kind, faiss.METRIC_INNER_PRODUCT)
        self._restore(index.sq)
        index.is_trained = True
        index.codes.resize(total * self.code_bytes)
        index.ntotal = total
        stored = faiss.rev_swig_ptr(index.codes.data(), total * self.code_bytes).reshape(
            total, self.code_bytes
        )
        row = 0
        for codes, _ in parts:
            stored[row : row + len(codes)] = codes
            row += len(codes)
        return index

    def _in_lists(self, sizes: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> faiss.Index:
        lists = self._lists()
        index: Any = faiss.IndexIVFScalarQuantizer(
            lists, self.dim, len(self.centres), self._kind, faiss.METRIC_INNER_PRODUCT, False
        )
        index.own_fields = True
        lists.this.disown()  # the index frees it
        self._restore(index.sq)
        index.is_trained = True
        for number, size in enumerate(
            sizes.tolist()
        ):  # a vector that shrinks keeps its memory, so adding rows allocates none
            index.invlists.resize(number, size)
            index.invlists.resize(number, 0)
        row = 0
        for codes, chosen in parts:
            rows, lists_of = self.decode(codes), np.ascontiguousarray(chosen, np.int64)
            index.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(lists_of))
            row += len(rows)
        return index

    @property
    def _kind(self) -> int:
        return faiss.ScalarQuantizer.QT_8bit if len(self.ranges) else faiss.ScalarQuantizer.QT_fp16

    def _quantizer(self) -> faiss.ScalarQuantizer:
        quantizer = faiss.ScalarQuantizer(self.dim, self._kind)
        self._restore(quantizer)
        return quantizer

    def _restore(self, quantizer: faiss.ScalarQuantizer) -> None:
        if len(self.ranges):
            faiss.copy_array_to_vector(np.ascontiguousarray(self.ranges, np.float32), quantizer.trained)

    def _lists(self) -> Any:
        lists = faiss.IndexFlatIP(self.dim)
        lists.add(np.ascontiguousarray(self.centres, np.float32))  # pyright: ignore[reportCallIssue]
        return lists


def sample_step(total: int) -> int:
    """Return the n such that every n-th row gives a sample of at most SAMPLED_ROWS rows."""
    return max(1, -(-total // SAMPLED_ROWS))


def num_lists(total: int) -> int:
    """Return the number of lists for a number of rows."""
    return 4 * math.isqrt(total)
