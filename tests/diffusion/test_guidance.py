"""Laws of guidance and candidate choice (docs/method.md eq. 12)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.guidance import best_of, guide, guided, guided_in_one_batch
from corgi.diffusion.loss import Parameterisation, from_x0, to_x0
from corgi.diffusion.samplers import ddim
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable

CLUSTER = torch.tensor([0, 1, 2, 1, 0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def conditional(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
    """One arbitrary denoiser."""
    return torch.sin(z) + cluster[:, None]


def unconditional(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
    """Another one."""
    return torch.cos(z) * t[:, None] / 1000


def test_law_19_scale_1_is_conditional_and_0_unconditional_eq_12() -> None:
    """Also linear in between, against numpy."""
    c, u = normal(5, 4), normal(5, 4, seed=1)
    torch.testing.assert_close(guide(c, u, 1.0), c, rtol=1e-10, atol=1e-10)
    assert torch.equal(guide(c, u, 0.0), u)
    np.testing.assert_allclose(
        guide(c, u, 2.5), (1 - 2.5) * u.numpy() + 2.5 * c.numpy(), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_law_19_guidance_in_x0_eps_and_v_form_agree(kind: Parameterisation, table: ShiftTable) -> None:
    """Guiding the converted predictions equals converting the guided one."""
    process, t = ShiftedDiffusion(table, Schedule.linear()), torch.tensor([1, 10, 400, 999, 1000])
    z_t, c, u = normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    converted = [from_x0(process, z_0, z_t, t, CLUSTER, kind) for z_0 in (c, u)]
    back = to_x0(process, guide(converted[0], converted[1], 3.0), z_t, t, CLUSTER, kind)
    torch.testing.assert_close(back, guide(c, u, 3.0), rtol=1e-10, atol=1e-10)


def test_law_19_guidance_commutes_with_whitening(table: ShiftTable) -> None:
    """whiten(guide(c, u)) = guide(whiten(c), whiten(u))."""
    c, u = normal(5, 4), normal(5, 4, seed=1)
    inside = guide(table.whiten(c, CLUSTER), table.whiten(u, CLUSTER), 4.0)
    torch.testing.assert_close(table.whiten(guide(c, u, 4.0), CLUSTER), inside, rtol=1e-10, atol=1e-10)


def test_law_21_both_guidance_branches_get_the_same_cluster_and_time(table: ShiftTable) -> None:
    """Every step calls both branches with identical arguments."""
    calls: dict[str, list[tuple[Tensor, ...]]] = {"c": [], "u": []}

    def spy(name: str, z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        calls[name].append((z, t, cluster))
        return conditional(z, t, cluster) if name == "c" else unconditional(z, t, cluster)

    denoise = guided(lambda *a: spy("c", *a), lambda *a: spy("u", *a), 2.0)
    ddim(denoise, ShiftedDiffusion(table, Schedule.linear()), CLUSTER, lambda _: normal(5, 4), 8)
    assert len(calls["c"]) == len(calls["u"]) == 8
    for one, other in zip(calls["c"], calls["u"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert torch.equal(one[2], CLUSTER)


def test_scales_0_and_1_cost_one_network_call() -> None:
    """The other branch is not run."""
    assert guided(conditional, unconditional, 1.0) is conditional
    assert guided(conditional, unconditional, 0.0) is unconditional


@pytest.mark.parametrize("scale", [0.0, 2.5])
def test_outside_its_interval_guidance_has_scale_1(scale: float) -> None:
    """Rows within 10..400 are guided, both ends included, the others are conditional."""
    z, t = normal(5, 4), torch.tensor([1, 10, 400, 401, 1000])
    found = guided(conditional, unconditional, scale, (10.0, 400.0))(z, t, CLUSTER)
    c = conditional(z, t, CLUSTER)
    expected = guide(c, unconditional(z, t, CLUSTER), scale)
    inside = torch.tensor([False, True, True, False, False])
    assert torch.equal(found, torch.where(inside[:, None], expected, c))


@pytest.mark.parametrize("interval", [None, (10.0, 400.0)])
def test_guidance_in_one_batch_is_the_same_with_one_call(interval: tuple[float, float] | None) -> None:
    """The first half of the rows of that call is conditional, the second half is not."""
    z, t, rows = normal(5, 4), torch.tensor([1, 10, 400, 401, 1000]), []

    def both(z_t: Tensor, t: Tensor, cluster: Tensor, /) -> Tensor:
        rows.append(len(z_t))
        c, u = conditional(z_t, t, cluster), unconditional(z_t, t, cluster)
        return torch.cat([c[:5], u[5:]])

    found = guided_in_one_batch(both, 2.5, interval)(z, t, CLUSTER)
    assert torch.equal(found, guided(conditional, unconditional, 2.5, interval)(z, t, CLUSTER))
    assert rows == [10]


def test_best_of_keeps_the_closest_candidate_and_the_first_on_ties() -> None:
    """Against a numpy loop; norms do not matter."""
    candidates, text = normal(3, 10, 4), normal(10, 4, seed=1)
    chosen = best_of(candidates * torch.tensor([5.0, 0.1, 1.0])[:, None, None], text)
    for i in range(10):
        rows, caption = candidates[:, i].numpy(), text[i].numpy()
        best = int(np.argmax(rows @ caption / np.linalg.norm(rows, axis=1)))
        np.testing.assert_allclose(chosen[i] / chosen[i].norm(), rows[best] / np.linalg.norm(rows[best]))
    tied = torch.stack([candidates[0], 2 * candidates[0]])
    assert torch.equal(best_of(tied, text), candidates[0])
