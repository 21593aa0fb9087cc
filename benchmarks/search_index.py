"""How fast search answers over a million vectors of 512 dimensions: `python -m benchmarks.search_index` prints the figures as JSON.

Vectors are drawn around centres, as embeddings of images are. `benchmarks/serving.py` runs this in a process of its own, whose
largest resident memory is that of the index, its making and its searches; models are not in it.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from statistics import median

import faiss
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from corgi.serving.codes import Codec, sample_step
from corgi.serving.picture_index import PictureIndex, Where

ROWS, DIM, CENTRES = 1_000_000, 512, 2000
PART = 10_000
QUERIES, FOUND = 100, 10
ASKED = {"any": Where(), "train": Where(split="train")}
Part = Float[np.ndarray, "rows dim"]


def main(arguments: list[str]) -> int:
    """Build, ask, compare with all; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args(arguments).rows
    faiss.omp_set_num_threads(1)
    started = time.perf_counter()
    index = built(rows)
    figures = {"build_s": time.perf_counter() - started}
    queries = part(0, rows)[:: PART // QUERIES][:QUERIES]
    found: list[tuple[list[int], ...]] = []
    for name, where in ASKED.items():
        index.search(queries[0], FOUND, where)
        waits, rows_found = zip(*(timed(index, query, where) for query in queries), strict=True)
        found.append(rows_found)
        figures[f"median_ms/{name}"] = 1000 * median(waits)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    for name, mine, true in zip(ASKED, found, exact(queries, rows, list(ASKED.values())), strict=True):
        figures[f"recall/{name}"] = recall(mine, true)
    print(json.dumps(figures))
    return 0


def part(first: int, rows: int) -> Part:
    """Return the unit vectors of the rows from `first` on; the same rows whenever they are asked for."""
    generator = np.random.default_rng([1, first])
    number = min(PART, rows - first)
    near = centres()[generator.integers(CENTRES, size=number)]
    drawn = near + 1.2 * generator.standard_normal((number, DIM), np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def centres() -> Float[np.ndarray, "centres dim"]:
    """Return the points that vectors are drawn around."""
    return np.random.default_rng(0).standard_normal((CENTRES, DIM), np.float32)


def is_train(rows: Int[np.ndarray, "n"]) -> np.ndarray:
    """Return which rows are of the train split: nine of ten."""
    return rows % 10 != 0


def built(rows: int) -> PictureIndex:
    """Return the index, made part by part as a server reads it."""
    firsts = range(0, rows, PART)
    step = sample_step(rows)
    sample = np.concatenate([part(first, rows)[::step].astype(np.float16) for first in firsts])
    codec = Codec.fitted(sample, rows)
    del sample
    lists = [np.full(min(PART, rows - first), -1, np.int32) for first in firsts]
    sizes = np.array([len(one) for one in lists])
    if len(codec.centres):
        lists = [codec.lists_of(part(first, rows)) for first in firsts]
        sizes = np.bincount(np.concatenate(lists), minlength=len(codec.centres))
    codes = (codec.encode(part(first, rows)) for first in firsts)
    index = codec.index(sizes, zip(codes, lists, strict=True))
    number = np.arange(rows)
    split = pa.array(np.where(is_train(number), "train", "test")).dictionary_encode()
    table = pa.table(
        {
            "split": split,
            "keep": pa.array(np.ones(rows, bool)),
            "reason": pa.nulls(rows, pa.string()),
            "domain": pa.nulls(rows, pa.string()),
        }
    )
    uid = np.char.zfill(number.astype("S32"), 32)
    return PictureIndex((), table, uid, np.zeros(rows, np.int32), number.astype(np.int32), index)


def timed(index: PictureIndex, query: Float[np.ndarray, "dim"], where: Where) -> tuple[float, list[int]]:
    """Return the seconds of one search, and the rows found."""
    started = time.perf_counter()
    found = index.search(query, FOUND, where)
    return time.perf_counter() - started, [one.row for one in found]


def exact(queries: Part, rows: int, wheres: Sequence[Where]) -> list[Int[np.ndarray, "queries found"]]:
    """Return the rows of largest cosine among each choice of rows by comparing all, part by part."""
    best = [Best(len(queries)) for _ in wheres]
    for first in range(0, rows, PART):
        number = np.arange(first, min(first + PART, rows))
        cosines = queries @ part(first, rows).T
        for where, found in zip(wheres, best, strict=True):
            chosen = np.full(len(number), True) if where.split is None else is_train(number)
            found.add(cosines[:, chosen], number[chosen])
    return [found.rows for found in best]


class Best:
    """The rows of largest cosine to each query so far."""

    def __init__(self, queries: int) -> None:
        """Begin without any."""
        self.cosines = np.full((queries, FOUND), -np.inf, np.float32)
        self.rows = np.zeros((queries, FOUND), np.int64)

    def add(self, cosines: Float[np.ndarray, "queries n"], number: Int[np.ndarray, "n"]) -> None:
        """Take the best of these rows, given by number, and of those that were the best before."""
        both = np.concatenate([self.cosines, cosines], axis=1)
        every = np.concatenate([self.rows, np.broadcast_to(number, cosines.shape)], axis=1)
        order = np.argpartition(-both, FOUND, axis=1)[:, :FOUND]
        self.cosines = np.take_along_axis(both, order, axis=1)
        self.rows = np.take_along_axis(every, order, axis=1)


def recall(found: tuple[list[int], ...], true: Int[np.ndarray, "queries found"]) -> float:
    """Return the mean share of the true nearest rows that were found."""
    shares = [len(set(a) & set(b)) / FOUND for a, b in zip(found, true.tolist(), strict=True)]
    return float(np.mean(shares))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
