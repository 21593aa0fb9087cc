"""Laws of the schedules (docs/method.md eq. 1, 2, 5, 6)."""

import numpy as np
import pytest
import torch

from corgi.diffusion.schedule import SCHEDULE_NAMES, Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_tables_are_float64_monotone_and_within_bounds(name: str) -> None:
    """0 <= abar <= 1 falls strictly from abar_0 = 1; only the zero-SNR variants and the straight path reach 0."""
    schedule = Schedule.named(name)
    alpha_bar = schedule.alpha_bar
    assert alpha_bar.dtype == schedule.betas.dtype == torch.float64
    assert len(alpha_bar) == 1001
    assert alpha_bar[0] == 1
    assert bool((alpha_bar.diff() < 0).all())
    assert (alpha_bar[-1] == 0) == name.endswith(("zero_snr", "flow"))
    np.testing.assert_allclose(alpha_bar, np.cumprod(1 - schedule.betas.numpy()), rtol=1e-11, atol=1e-18)


def test_linear_and_cosine_end_where_the_literature_says() -> None:
    """abar_T = 4.0e-5 linear, 2.4e-9 cosine; pull at T/4, T/2, 3T/4 = .28 .72 .94 and .08 .30 .62."""
    linear, cosine = Schedule.linear(), Schedule.cosine()
    assert float(linear.alpha_bar[-1]) == pytest.approx(4.04e-5, rel=1e-2)
    assert float(cosine.alpha_bar[-1]) == pytest.approx(2.43e-9, rel=1e-2)
    quarters = [250, 500, 750]
    np.testing.assert_allclose(linear.pull[quarters], [0.28, 0.72, 0.94], atol=5e-3)
    np.testing.assert_allclose(cosine.pull[quarters], [0.08, 0.30, 0.62], atol=5e-3)


def test_scaled_linear_is_that_of_stable_diffusion() -> None:
    """Its betas are those of diffusers' schedulers under that name."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    np.testing.assert_allclose(Schedule.named("scaled_linear").betas[1:], theirs.betas, rtol=1e-5)


def test_eq_1_shift_keeps_its_digits_for_small_beta() -> None:
    """1 - sqrt(1 - beta) agrees with its series to 1e-14 relative, also at beta = 1e-9."""
    beta = 1e-9
    schedule = Schedule.from_betas(torch.tensor([beta, 0.5], dtype=torch.float64))
    series = beta / 2 + beta**2 / 8 + beta**3 / 16
    assert float(schedule.shift[1]) == pytest.approx(series, rel=1e-14)
    assert float(schedule.pull[1]) == pytest.approx(series, rel=1e-14)


def test_zero_terminal_snr_keeps_the_first_step() -> None:
    """abar_1 stays, abar_T is exactly 0, beta_T is 1, and nothing is NaN."""
    schedule = Schedule.cosine().zero_terminal_snr()
    assert float(schedule.alpha_bar[1]) == pytest.approx(float(Schedule.cosine().alpha_bar[1]), rel=1e-12)
    assert schedule.betas[-1] == 1
    t = torch.arange(1, 1001)
    assert all(bool(part.isfinite().all()) for part in schedule.jump(t, t - 1))


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("num_steps", [1, 2, 8, 27, 64, 1000])
def test_law_12_respacing_eq_6_keeps_marginals_and_original_times(name: str, num_steps: int) -> None:
    """Respaced marginals equal the original ones at the kept steps; s' follows beta'; n = T changes nothing."""
    schedule = Schedule.named(name)
    respaced = schedule.respace(num_steps)
    kept = respaced.timesteps
    assert len(set(kept.tolist())) == num_steps + 1
    assert kept[0] == 0
    assert kept[-1] == 1000
    np.testing.assert_allclose(respaced.alpha_bar, schedule.alpha_bar[kept], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(respaced.shift, 1 - np.sqrt(1 - respaced.betas.numpy()), atol=1e-12)
    if num_steps == 1000:
        np.testing.assert_allclose(respaced.betas, schedule.betas, rtol=1e-10)
        assert torch.equal(kept, schedule.timesteps)


def test_law_12_eight_steps_are_those_of_the_released_code() -> None:
    """0-based 0, 143, 285, 428, 571, 714, 856, 999."""
    assert Schedule.linear().kept_timesteps(8) == [1, 144, 286, 429, 572, 715, 857, 1000]


def test_law_12_recomputed_shift_pulls_to_mu_where_the_old_one_would_not() -> None:
    """At n = 8 the chain of eq. 1 ends .994 of the way to mu; with the old s_t it would end at .013."""
    schedule = Schedule.linear()
    process = ShiftedDiffusion(
        ShiftTable(torch.ones(1, 1).double(), torch.ones(1, 1).double()), schedule.respace(8)
    )
    z, cluster = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    for i in range(1, 9):
        z = process.transition(z, torch.tensor([i]), cluster).mean
    assert float(z) == pytest.approx(0.994, abs=1e-3)


def test_flow_is_the_straight_path_over_its_standard_deviation() -> None:
    """sqrt(abar_t) : sqrt(1 - abar_t) = 1 - s : s at s = t/T."""
    schedule = Schedule.flow(8)
    share = np.arange(9) / 8
    std = np.hypot(1 - share, share)
    np.testing.assert_allclose(schedule.alpha_bar.sqrt(), (1 - share) / std, atol=1e-12)
    np.testing.assert_allclose(schedule.one_minus_alpha_bar.sqrt(), share / std, atol=1e-12)


def test_bad_schedules_are_refused() -> None:
    """Betas outside (0, 1], beta = 1 before the end, unknown names and step counts raise ValueError."""
    for betas in ([0.0, 0.1], [0.1, 1.1], [1.0, 0.5], [float("nan")]):
        with pytest.raises(ValueError, match="beta"):
            Schedule.from_betas(torch.tensor(betas, dtype=torch.float64))
    with pytest.raises(ValueError, match="not one of"):
        Schedule.named("sigmoid")
    for num_steps in (0, 1001):
        with pytest.raises(ValueError, match=r"1\.\.1000"):
            Schedule.linear().kept_timesteps(num_steps)
