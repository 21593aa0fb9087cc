"""Philox4x32-10: Random123's known answers, the same integers by both paths, and what is made of them."""

import math

import numpy as np
import pytest
import torch

from corgi.diffusion import philox
from corgi.diffusion.philox import (
    CHAIN,
    MAX_DRAWS,
    NORMAL,
    Stream,
    integers,
    normals,
    philox4x32,
    seeds_of,
    uniforms,
)
from tests.support.fake_cuda import CUDA, fake_cuda
from tests.support.shapes import REFUSED

ONES = 0xFFFFFFFF
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""kat_vectors of Random123: counter, key, answer."""


def stream(rows: int = 64, draw: int = 3, first: int = 2**40) -> Stream:
    return Stream(seeds_of(range(rows)), torch.arange(first, first + rows), NORMAL, draw)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(counter, key, answer) -> None:
    assert tuple(int(word) for word in philox4x32(counter, key)) == answer


@pytest.mark.parametrize("blocks", [(0, 1), (3, 50)])
def test_numpy_and_tensor_operations_give_the_same_words(blocks: tuple[int, int]) -> None:
    """What a CPU takes and what a GPU takes, for seeds and positions beyond 32 bits."""
    drawn = stream()._replace(seed=seeds_of([2**64 - 1 - n * 2**33 for n in range(64)]))
    seed, position, block = drawn.seed[:, None], drawn.position[:, None], torch.arange(*blocks)[None]
    counter = (block, position & ONES, (position >> 32) & ONES, NORMAL * MAX_DRAWS + drawn.draw)
    expected = philox4x32(counter, (seed & ONES, (seed >> 32) & ONES))
    for word, found in zip(expected, philox.cpu_words(drawn, *blocks), strict=True):
        assert torch.equal(word, found)


def test_normals_are_box_mullers_of_the_words() -> None:
    """Against float64, within what a device's logarithm and sine may differ by."""
    found = normals(stream(), 10).double()
    words = [word.double() for word in philox.cpu_words(stream(), 0, 3)]
    unit = [((word / 256).floor() + 0.5) / 2**24 for word in words]
    for pair in (0, 2):
        radius = (-2 * unit[pair].log()).sqrt()
        for place, wave in enumerate((torch.cos, torch.sin)):
            expected = radius * wave(2 * math.pi * unit[pair + 1])
            columns = range(pair + place, 10, 4)
            torch.testing.assert_close(found[:, columns], expected[:, : len(columns)], rtol=0, atol=4e-6)


@pytest.mark.law
def test_a_large_draw_is_that_of_its_rows_alone() -> None:
    """Rows and blocks are worked on in parts; no bit depends on which."""
    few = philox.CPU_BLOCKS // 8
    whole = normals(stream(20), 4 * few + 3)
    for row in (0, 7, 19):
        alone = Stream(seeds_of([row]), torch.tensor([2**40 + row]), NORMAL, 3)
        assert torch.equal(normals(alone, 4 * few + 3), whole[row : row + 1])
    assert torch.equal(normals(stream(20), 5), whole[:, :5])
    huge = 4 * (philox.CPU_BLOCKS + 1)
    assert torch.equal(normals(stream(1), huge)[:, :8], whole[:1, :8])


@pytest.mark.law
def test_moments_of_normals_uniforms_and_integers() -> None:
    drawn = stream(20_000)
    normal, uniform, whole = normals(drawn, 8), uniforms(drawn), integers(drawn, 2, 12)
    count = normal.numel()
    assert abs(float(normal.mean())) < 4 / np.sqrt(count)
    assert abs(float(normal.var()) - 1) < 4 * np.sqrt(2 / count)
    assert abs(float(normal.pow(4).mean()) - 3) < 4 * np.sqrt(96 / count)
    assert abs(float(uniform.mean()) - 0.5) < 4 / np.sqrt(12 * 20_000)
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1
    assert whole.unique().tolist() == list(range(2, 12))


def test_kinds_and_draws_are_streams_of_their_own() -> None:
    first = normals(stream(), 4)
    assert not torch.equal(first, normals(stream(draw=4), 4))
    assert not torch.equal(first, normals(stream()._replace(kind=CHAIN), 4))
    assert not torch.equal(first, normals(stream(first=2**41), 4))
    for draw in (-1, MAX_DRAWS):
        with pytest.raises(REFUSED):
            normals(stream(draw=draw), 4)


def test_a_gpu_draws_without_copies_or_waits() -> None:
    drawn = stream()
    with fake_cuda() as watch:
        moved = drawn._replace(seed=drawn.seed.to(CUDA), position=drawn.position.to(CUDA))
        watch.copies.clear()
        for values in (normals(moved, 10), uniforms(moved), integers(moved, 1, 1001)):
            assert values.device.type == "cuda"
    assert (watch.copies.total(), watch.syncs.total()) == (0, 0)
