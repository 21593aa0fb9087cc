"""How an index holds vectors: what is found in each form, and that lists and flat codes hold every row once."""

import faiss
import numpy as np
import pytest

from corgi.serving import codes
from corgi.serving.codes import PROBED_LISTS, Codec

DIM, ROWS = 32, 20_000


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Unit vectors around centres, as embeddings of images are; Gaussian noise has no structure to find lists by."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(50, DIM))
    rows = centres[generator.integers(50, size=ROWS)] + 0.7 * generator.normal(size=(ROWS, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["half floats", "bytes", "lists"])
def codec(request, vectors, monkeypatch) -> Codec:
    monkeypatch.setattr(codes, "HALF_ROWS", 10**9 if request.param == "half floats" else 1000)
    monkeypatch.setattr(codes, "FLAT_ROWS", 2000 if request.param == "lists" else 10**9)
    made = Codec.fitted(vectors[::2], len(vectors))
    assert (len(made.centres) > 0) == (request.param == "lists")
    assert made.code_bytes == DIM * (2 if request.param == "half floats" else 1)
    return made


def built(codec: Codec, vectors: np.ndarray) -> faiss.Index:
    parts = [vectors[:7000], vectors[7000:7000], vectors[7000:]]
    lists = [codec.lists_of(part) for part in parts]
    sizes = np.array([len(part) for part in parts])
    if len(codec.centres):
        sizes = np.bincount(np.concatenate(lists), minlength=len(codec.centres))
    return codec.index(sizes, zip(map(codec.encode, parts), lists, strict=True))


def test_law_every_row_is_found_and_the_nearest_ten_are_the_true_ones(codec, vectors):
    index = built(codec, vectors)
    assert index.ntotal == len(vectors)
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = PROBED_LISTS
    queries = vectors[::500]
    cosines, found = index.search(queries, 10)  # pyright: ignore[reportCallIssue]
    assert found[:, 0].tolist() == list(range(0, len(vectors), 500))
    true = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)])
    assert recall >= 0.95
    exact = np.take_along_axis(queries @ vectors.T, found, axis=1)
    assert np.abs(cosines - exact).max() < 0.02


def test_law_codes_stand_for_their_vectors(codec, vectors):
    again = codec.decode(codec.encode(vectors))
    assert np.abs(again - vectors).max() < 0.01


def test_lists_take_memory_for_exactly_their_rows(vectors, monkeypatch):
    monkeypatch.setattr(codes, "HALF_ROWS", 1000)
    monkeypatch.setattr(codes, "FLAT_ROWS", 2000)
    codec = Codec.fitted(vectors[::2], len(vectors))
    index = built(codec, vectors)
    sizes = [index.invlists.list_size(number) for number in range(index.nlist)]  # pyright: ignore[reportAttributeAccessIssue]
    assert sum(sizes) == len(vectors)
    assert sizes == np.bincount(codec.lists_of(vectors), minlength=len(codec.centres)).tolist()


@pytest.mark.parametrize("total", [1, 200_000, 200_001, 399_999, 10**9])
def test_law_a_sample_is_never_larger_than_its_bound(total):
    step = codes.sample_step(total)
    assert -(-total // step) <= codes.SAMPLED_ROWS
    assert step == 1 or -(-total // (step - 1)) > codes.SAMPLED_ROWS
