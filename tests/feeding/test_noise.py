import numpy as np
import pytest
import torch

from corgi.feeding.noise import Noise

POSITIONS = torch.arange(1000, 1064)


def draws(noise: Noise) -> list[torch.Tensor]:
    return [noise.normal((3, 5), 0), noise.uniform(0), noise.integers(0, 1000, 0)]


@pytest.mark.law
@pytest.mark.parametrize("parts", [2, 4, 64])
def test_noise_does_not_depend_on_how_a_batch_is_cut(parts: int) -> None:
    whole = draws(Noise(7, POSITIONS))
    pieces = [draws(Noise(7, part)) for part in POSITIONS.chunk(parts)]
    for index, values in enumerate(whole):
        assert torch.equal(values, torch.cat([piece[index] for piece in pieces]))


@pytest.mark.law
def test_noise_does_not_depend_on_what_was_drawn_before() -> None:
    noise = Noise(7, POSITIONS)
    first = noise.normal((4,), 2)
    noise.normal((100,), 1)
    noise.integers(0, 3, 9)
    assert torch.equal(noise.normal((4,), 2), first)


def test_longer_shapes_begin_alike_and_other_keys_differ() -> None:
    noise = Noise(7, POSITIONS)
    assert not torch.equal(noise.normal((4,), 0), noise.normal((4,), 1))
    assert not torch.equal(noise.normal((4,), 0), Noise(8, POSITIONS).normal((4,), 0))
    assert not torch.equal(noise.normal((4,), 0), Noise(7, POSITIONS + 64).normal((4,), 0))


@pytest.mark.law
def test_moments_and_ranges() -> None:
    noise = Noise(3, torch.arange(20_000))
    normal, uniform, whole = noise.normal((8,), 0), noise.uniform(1), noise.integers(2, 12, 2)
    count = normal.numel()
    assert abs(normal.mean()) < 4 / np.sqrt(count)
    assert abs(normal.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(uniform.mean() - 0.5) < 4 / np.sqrt(12 * 20_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert whole.unique().tolist() == list(range(2, 12))
    assert torch.bincount(whole)[2:].float().std() < 4 * np.sqrt(2000)


@pytest.mark.law
def test_neighbouring_rows_and_kinds_of_draw_are_uncorrelated() -> None:
    noise = Noise(3, torch.arange(20_000))
    normal = noise.normal((), 0)
    assert abs(torch.corrcoef(torch.stack([normal[1:], normal[:-1]]))[0, 1]) < 4 / np.sqrt(20_000)
    assert abs(torch.corrcoef(torch.stack([normal, noise.uniform(0)]))[0, 1]) < 4 / np.sqrt(20_000)


def test_positions_beyond_four_billion_are_their_own() -> None:
    far = Noise(7, torch.tensor([5, 5 + 2**32, 5 + 2**40])).normal((6,), 0)
    assert len({tuple(row.tolist()) for row in far}) == 3


def test_types() -> None:
    noise = Noise(7, POSITIONS)
    assert noise.normal((2,), 0).dtype == noise.uniform(0).dtype == torch.float32
    assert noise.normal((), 0).shape == noise.uniform(0).shape == noise.integers(0, 2, 0).shape == (64,)
    assert noise.integers(0, 2, 0).dtype == torch.int64
