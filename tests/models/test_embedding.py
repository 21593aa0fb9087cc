"""Laws of the sinusoidal embedding."""

import pytest
import torch

from corgi.models.embedding import sinusoidal_embedding


def test_shifting_positions_rotates_the_embedding() -> None:
    """Inner products depend on the difference of positions alone, and are largest at 0."""
    p = torch.tensor([0, 1, 7, 100])
    gram = [sinusoidal_embedding(p + s, 64) @ sinusoidal_embedding(p + s, 64).mT for s in (0, 500)]
    torch.testing.assert_close(gram[0], gram[1], rtol=0, atol=2e-2)
    torch.testing.assert_close(gram[0].diagonal(), torch.full((4,), 32.0))


def test_every_timestep_has_its_own_embedding() -> None:
    """1000 integers stay apart by more than rounding, also in bf16's 8 bits."""
    table = sinusoidal_embedding(torch.arange(1001), 256).bfloat16().float()
    assert float(table[1:].sub(table[:-1]).norm(dim=1).min()) > 0.1


def test_odd_width_is_refused() -> None:
    """There is no half of an odd width."""
    with pytest.raises(ValueError, match="even"):
        sinusoidal_embedding(torch.arange(3), 5)
