"""Laws of spherical interpolation."""

import math

import pytest
import torch
import torch.nn.functional as F

from corgi.diffusion.sphere import SMALLEST_ANGLE, mixed, slerp


def units(rows: int, dim: int = 12, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(drawn, dim=-1)


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_law_slerp_divides_the_angle_and_stays_on_the_sphere(share: float) -> None:
    a, b = units(50), units(50, seed=1)
    between = slerp(a, b, share)
    torch.testing.assert_close(between.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(angle(a, between), share * angle(a, b))
    torch.testing.assert_close(angle(between, b), (1 - share) * angle(a, b))


def test_law_slerp_is_symmetric_and_ends_at_its_ends() -> None:
    a, b = units(9), units(9, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.3), slerp(b, a, 0.7))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


@pytest.mark.parametrize("distance", [0.0, 1e-9, SMALLEST_ANGLE / 2, SMALLEST_ANGLE * 2])
def test_law_slerp_of_almost_equal_embeddings_has_no_jump(distance: float) -> None:
    a, direction = units(2)
    b = F.normalize(a + distance * direction, dim=-1)
    between = slerp(a, b, 0.25)
    assert torch.isfinite(between).all()
    torch.testing.assert_close(angle(a, between), 0.25 * angle(a, b), atol=1e-12, rtol=1e-6)


def test_opposite_embeddings_have_no_arc() -> None:
    a = units(1)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)


def test_law_a_mixture_of_two_is_slerp_and_weights_count_by_their_shares() -> None:
    a, b, c = units(3)
    torch.testing.assert_close(mixed(torch.stack([a, b]), [3.0, 1.0]), slerp(a, b, 0.25))
    torch.testing.assert_close(
        mixed(torch.stack([a, b, c]), [1.0, 2.0, 3.0]), mixed(torch.stack([a, b, c]), [2.0, 4.0, 6.0])
    )
    torch.testing.assert_close(mixed(torch.stack([a, b, c]), [1.0, 0.0, 0.0]), a)
    equal = mixed(torch.stack([a, b, c]), [1.0, 1.0, 1.0])
    assert all(math.pi / 2 > float(angle(equal, part)) for part in (a, b))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.1], [0.0, 1.0], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="2 embeddings need as many weights"):
        mixed(units(2), weights)
