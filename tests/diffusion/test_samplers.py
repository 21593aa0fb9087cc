"""Laws of the native samplers (docs/method.md eq. 8, 9)."""

from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion import samplers
from corgi.diffusion.samplers import ancestral, ddim, philox_noise
from corgi.diffusion.schedule import SCHEDULE_NAMES, Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.names import SamplerName
from tests.support.shapes import REFUSED

SAMPLERS = {
    "large": partial(ancestral, variance="large"),
    "small": partial(ancestral, variance="small"),
    "ddim": partial(ddim, eta=0.0),
    "ddim_half": partial(ddim, eta=0.5),
    "ddim_one": partial(ddim, eta=1.0),
}
CLUSTER = torch.tensor([0, 1, 2, 1, 0])
STRIDES = [1, 2, 8, 50, [1000], [3, 4, 700, 1000]]
Draws = Callable[[int], Callable[[int], Tensor]]


def close(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, rel: float) -> None:
    """Assert max abs error / max(1, max abs) <= rel."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= rel * max(1.0, np.abs(expected).max())


def nonlinear(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
    """An arbitrary denoiser that mixes dimensions, times and clusters."""
    return torch.sin(z.flip(-1) + t[:, None] / 300) + 0.3 * z * cluster[:, None]


def numpy_chain(kind: str, betas: np.ndarray, kept: list[int], noise: Callable[[int], Tensor]) -> np.ndarray:
    """Textbook DDPM and DDIM with mean 0 and unit noise, written from the papers in numpy."""
    abar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    x = noise(0).numpy()
    times = [0, *kept]
    for draw, i in enumerate(range(len(kept), 0, -1), start=1):
        a_t, a_s = abar[times[i]], abar[times[i - 1]]
        t = torch.full((len(x),), times[i])
        x_0 = nonlinear(torch.tensor(x), t, torch.zeros_like(t)).numpy()
        tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        if kind in ("large", "small"):
            weight_0 = np.sqrt(a_s) * (1 - a_t / a_s) / (1 - a_t)
            mean = weight_0 * x_0 + np.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t) * x
            variance = (1 - a_t / a_s) if kind == "large" else tilde
        else:
            eps = (x - np.sqrt(a_t) * x_0) / np.sqrt(1 - a_t)
            variance = {"ddim": 0, "ddim_half": 0.25, "ddim_one": 1}[kind] * tilde
            mean = np.sqrt(a_s) * x_0 + np.sqrt(1 - a_s - variance) * eps
        x = mean if times[i - 1] == 0 else mean + np.sqrt(variance) * noise(draw).numpy()
    return x


def spread(
    sampler: Callable[..., Tensor], process: ShiftedDiffusion, denoise: Callable, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and covariance of a sampler with an affine denoiser.

    The sample is then affine in the draws: sample j sees one unit of one coordinate of one draw, sample 0 none.
    """
    d, draws = process.table.dim, steps + 1

    def noise(draw: int) -> Tensor:
        rows = torch.zeros(1 + draws * d, d, dtype=torch.float64)
        rows[1 + draw * d : 1 + (draw + 1) * d] = torch.eye(d, dtype=torch.float64)
        return rows

    cluster = torch.zeros(1 + draws * d, dtype=torch.int64)
    samples = sampler(denoise, process, cluster, noise, steps).numpy()
    deviations = samples[1:] - samples[0]
    return samples[0], deviations.T @ deviations


def bayes(process: ShiftedDiffusion, mean: np.ndarray, covariance: np.ndarray, sigma: np.ndarray) -> Callable:
    """E[z_0 | z_t] for data N(mean, covariance), by conditioning in numpy."""
    abar = np.concatenate([[1.0], np.cumprod(1 - process.schedule.betas[1:].numpy())])
    mu = process.table.mean[0].numpy()

    def denoise(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        a = abar[int(t[0])]
        gain = np.sqrt(a) * covariance @ np.linalg.inv(a * covariance + (1 - a) * sigma)
        centre = mu + np.sqrt(a) * (mean - mu)
        return torch.tensor(mean + (z.numpy() - centre) @ gain.T)

    return denoise


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("steps", STRIDES, ids=str)
def test_law_05_the_zero_identity_table_is_textbook_ddpm(
    kind: str, steps: int | list[int], draws: Draws
) -> None:
    """eq. 8 and 9 with (0, I) equal an independent numpy sampler, path by path with shared noise."""
    schedule, noise = Schedule.linear(), draws(5)
    process = ShiftedDiffusion(ShiftTable.ddpm(4, torch.float64), schedule)
    kept = schedule.kept_timesteps(steps) if isinstance(steps, int) else steps
    expected = numpy_chain(kind, np.linspace(1e-4, 2e-2, 1000), kept, noise)
    cluster = torch.zeros(5, dtype=torch.int64)
    close(SAMPLERS[kind](nonlinear, process, cluster, noise, steps), expected, 1e-12)
    single = SAMPLERS[kind](nonlinear, process, cluster, lambda draw: noise(draw).float(), steps)
    assert single.dtype == torch.float32
    close(single, expected, 2e-5)


def test_law_05_q_sample_and_posterior_are_textbook_ddpm(draws: Draws) -> None:
    """eq. 3 and 4 with (0, I) equal the formulas of Ho et al. (2020), all t."""
    schedule = Schedule.linear()
    process = ShiftedDiffusion(ShiftTable.ddpm(4, torch.float64), schedule)
    noise, t, cluster = draws(1000), torch.arange(1, 1001), torch.zeros(1000, dtype=torch.int64)
    x_0, x_t, betas = noise(0), noise(1), np.linspace(1e-4, 2e-2, 1000)
    abar = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], abar[:-1]])
    expected = np.sqrt(abar)[:, None] * x_0.numpy() + np.sqrt(1 - abar)[:, None] * x_t.numpy()
    close(process.q_sample(x_0, t, x_t, cluster), expected, 1e-12)
    law = process.posterior(x_0, x_t, t, t - 1, cluster)
    first = (np.sqrt(before) * betas / (1 - abar))[:, None] * x_0.numpy()
    second = (np.sqrt(1 - betas) * (1 - before) / (1 - abar))[:, None] * x_t.numpy()
    close(law.mean, first + second, 1e-12)
    close(law.variance, betas * (1 - before) / (1 - abar), 1e-12)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("steps", STRIDES, ids=str)
def test_law_06_whitening_eq_10_is_ordinary_diffusion_path_by_path(
    kind: str, steps: int | list[int], table: ShiftTable, draws: Draws
) -> None:
    """Shifted z and ordinary x = L^-1 (z - mu) follow one path for an arbitrary denoiser and any stride."""
    schedule, noise = Schedule.linear(), draws(5)
    plain = ShiftedDiffusion(ShiftTable.ddpm(4, torch.float64), schedule)

    def whitened(x: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        return table.whiten(nonlinear(table.unwhiten(x, CLUSTER), t, CLUSTER), CLUSTER)

    z = SAMPLERS[kind](nonlinear, ShiftedDiffusion(table, schedule), CLUSTER, noise, steps)
    x = SAMPLERS[kind](whitened, plain, torch.zeros_like(CLUSTER), noise, steps)
    close(z, table.unwhiten(x, CLUSTER), 1e-10)


@pytest.mark.parametrize("steps", [2, 8, 27, 1000])
def test_law_12_network_gets_the_original_time_and_respacing_eq_6_is_the_same_chain(
    steps: int, table: ShiftTable, draws: Draws
) -> None:
    """The strided sampler calls the network at the kept t, and equals every step of the respaced schedule."""
    seen: list[int] = []

    def spy(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        assert t.shape == (5,)
        assert len(set(t.tolist())) == 1
        seen.append(int(t[0]))
        return nonlinear(z, t, cluster)

    schedule, noise = Schedule.linear(), draws(5)
    strided = ancestral(spy, ShiftedDiffusion(table, schedule), CLUSTER, noise, steps)
    assert seen == schedule.kept_timesteps(steps)[::-1]
    seen.clear()
    respaced = ancestral(spy, ShiftedDiffusion(table, schedule.respace(steps)), CLUSTER, noise, steps)
    assert seen == schedule.kept_timesteps(steps)[::-1]
    close(respaced, strided, 1e-10)


@pytest.mark.parametrize("steps", STRIDES, ids=str)
def test_law_13_ddim_eta_1_is_ancestral_small(
    steps: int | list[int], table: ShiftTable, draws: Draws
) -> None:
    """eq. 9 with eta = 1 is eq. 8 with btilde, with shared noise; different noise is a different sample."""
    process, noise = ShiftedDiffusion(table, Schedule.linear()), draws(5)
    one = ddim(nonlinear, process, CLUSTER, noise, steps, eta=1.0)
    close(one, ancestral(nonlinear, process, CLUSTER, noise, steps, variance="small"), 1e-12)


def test_law_13_ddim_eta_0_is_deterministic_given_the_start(table: ShiftTable, draws: Draws) -> None:
    """Two runs are bit-equal, and no noise but the start's is asked for."""
    asked: list[int] = []

    def noise(draw: int) -> Tensor:
        asked.append(draw)
        return draws(5)(draw)

    process = ShiftedDiffusion(table, Schedule.linear())
    first, second = (ddim(nonlinear, process, CLUSTER, noise, 8) for _ in range(2))
    assert torch.equal(first, second)
    assert asked == [0, 0]


@pytest.mark.parametrize("kind", ["large", "small", "ddim"])
@pytest.mark.usefixtures("unchecked")
def test_law_14_a_perfect_denoiser_recovers_gaussian_data_at_1000_steps(kind: str) -> None:
    """Mean and covariance within 3 %, for (mu, Sigma) unlike the data's."""
    mean, covariance = np.array([3.0, -1.0]), np.array([[1.0, 0.4], [0.4, 0.5]])
    sigma = np.array([[2.0, -0.5], [-0.5, 1.0]])
    table = ShiftTable.from_covariance(torch.tensor([[-1.0, 2.0]]).double(), torch.tensor(sigma)[None])
    process = ShiftedDiffusion(table, Schedule.linear())
    got_mean, got = spread(SAMPLERS[kind], process, bayes(process, mean, covariance, sigma), 1000)
    np.testing.assert_allclose(got_mean, mean, rtol=0.03)
    np.testing.assert_allclose(got, covariance, atol=0.03)


@pytest.mark.parametrize("steps", [2, 4, 8, 27, 100])
def test_law_15_a_matched_table_with_large_variance_is_exact_at_any_step_count(steps: int) -> None:
    """Data N(mu, Sigma) with the table (mu, Sigma): moments to 2e-4, however few the steps."""
    sigma, mu = np.array([[2.0, -0.5], [-0.5, 1.0]]), torch.tensor([[-1.0, 2.0]]).double()
    process = ShiftedDiffusion(ShiftTable.from_covariance(mu, torch.tensor(sigma)[None]), Schedule.linear())
    got_mean, got = spread(SAMPLERS["large"], process, bayes(process, mu[0].numpy(), sigma, sigma), steps)
    close(got_mean, mu[0], 2e-4)
    close(got, sigma, 2e-4)


@pytest.mark.parametrize(
    ("steps", "kind", "expected"),
    [
        (8, "large", (2.29, 1.25, 1.0, 0.85, 0.74)),
        (8, "small", (0.36, 0.59, 0.67, 0.71, 0.70)),
        (8, "ddim", (0.41, 0.65, 0.77, 0.81, 0.80)),
        (64, "large", (1.10, 1.03, 1.0, 0.98, 0.97)),
    ],
)
def test_law_16_spread_of_mismatched_tables(steps: int, kind: str, expected: tuple[float, ...]) -> None:
    """Recovered over true std for data/diffusion std r = 1/5, 1/2, 1, 2, 5 with a perfect denoiser."""
    process = ShiftedDiffusion(ShiftTable.ddpm(1, torch.float64), Schedule.linear())
    for ratio, wanted in zip((1 / 5, 1 / 2, 1, 2, 5), expected, strict=True):
        covariance = np.array([[ratio**2]])
        _, got = spread(SAMPLERS[kind], process, bayes(process, np.zeros(1), covariance, np.eye(1)), steps)
        assert float(np.sqrt(got[0, 0])) / ratio == pytest.approx(wanted, abs=0.006)


def test_law_16_r_one_fifth_at_8_large_steps_overdisperses_2_287_times() -> None:
    """The sampler is not secretly denoising."""
    process = ShiftedDiffusion(ShiftTable.ddpm(1, torch.float64), Schedule.linear())
    denoise = bayes(process, np.zeros(1), np.array([[0.04]]), np.eye(1))
    _, got = spread(SAMPLERS["large"], process, denoise, 8)
    assert float(np.sqrt(got[0, 0])) / 0.2 == pytest.approx(2.287, rel=0.01)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("name", ["linear", "cosine", "linear_zero_snr", "cosine_zero_snr"])
def test_law_17_an_oracle_ends_every_sampler_at_z_0(
    kind: str, name: str, table: ShiftTable, draws: Draws
) -> None:
    """A denoiser that knows z_0 is obeyed, at any schedule and stride."""
    truth = draws(5)(99)
    process = ShiftedDiffusion(table, Schedule.named(name))
    for steps in STRIDES:
        close(SAMPLERS[kind](lambda z, t, c: truth, process, CLUSTER, draws(5), steps), truth, 1e-10)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_law_21_permuting_clusters_leaves_samples_unchanged(
    kind: str, table: ShiftTable, draws: Draws
) -> None:
    """Reordered rows with reordered indices, bit for bit, for a denoiser that does not read the index."""
    order = torch.tensor([2, 0, 1])
    state = {name: value[order] for name, value in table.state_dict().items()}
    permuted, inverse = ShiftTable.from_state(state), order.argsort()

    def denoise(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        return torch.tanh(z) + t[:, None] / 1000

    chains = [(table, CLUSTER), (permuted, inverse[CLUSTER])]
    first, second = (
        SAMPLERS[kind](denoise, ShiftedDiffusion(one, Schedule.linear()), cluster, draws(5), 8)
        for one, cluster in chains
    )
    close(first, second, 1e-14)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_law_21_one_cluster_per_sample_in_start_and_every_step(
    kind: str, table: ShiftTable, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every use of L and mu and every call of the network sees the same index."""
    seen: list[Tensor] = []
    for name in ("apply_L", "centre"):
        original = getattr(ShiftTable, name)

        def spy(self: ShiftTable, first: Tensor, second: Tensor, original: Callable = original) -> Tensor:
            seen.extend(value for value in (first, second) if value.dtype == torch.int64)
            return original(self, first, second)

        monkeypatch.setattr(ShiftTable, name, spy)

    def denoise(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        seen.append(cluster)
        return nonlinear(z, t, cluster)

    SAMPLERS[kind](denoise, ShiftedDiffusion(table, Schedule.linear()), CLUSTER, draws(5), 8)
    assert len(seen) > 16
    assert all(torch.equal(cluster, CLUSTER) for cluster in seen)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_law_24_a_sample_does_not_depend_on_its_batch(kind: str, table: ShiftTable) -> None:
    """Sample i alone equals sample i among other clusters, given its seed, to 1e-6 in fp32."""
    process = ShiftedDiffusion(table, Schedule.linear())
    together = SAMPLERS[kind](nonlinear, process, CLUSTER, philox_noise(range(5), 4), 8)
    for i in range(5):
        alone = SAMPLERS[kind](nonlinear, process, CLUSTER[i : i + 1], philox_noise([i], 4), 8)
        close(together[i : i + 1], alone, 1e-6)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_no_sampler_inverts_sigma(
    kind: str, table: ShiftTable, draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """solve_L is never called."""

    def forbidden(*_: object) -> Tensor:
        raise AssertionError("a sampler inverted Sigma")

    monkeypatch.setattr(ShiftTable, "solve_L", forbidden)
    SAMPLERS[kind](nonlinear, ShiftedDiffusion(table, Schedule.linear()), CLUSTER, draws(5), 8)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_samplers_stay_in_float32_under_autocast(kind: str, table: ShiftTable) -> None:
    """bf16 autocast around the call reaches the network and not the chain, which stays within 1e-5 of float64."""
    inside: list[bool] = []

    def denoise(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        inside.append(torch.is_autocast_enabled("cpu"))
        return nonlinear(z, t, cluster)

    process, noise = ShiftedDiffusion(table, Schedule.linear()), philox_noise(range(5), 4)
    exact = SAMPLERS[kind](denoise, process, CLUSTER, lambda draw: noise(draw).double(), 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = SAMPLERS[kind](denoise, process, CLUSTER, noise, 8)
    assert inside == [False] * 8 + [True] * 8
    assert cast.dtype == torch.float32
    close(cast, exact, 1e-5)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_half_precision_noise_is_promoted(kind: str, table: ShiftTable) -> None:
    """bf16 noise gives a float32 chain."""
    noise = philox_noise(range(5), 4)
    process = ShiftedDiffusion(table, Schedule.linear())
    sample = SAMPLERS[kind](nonlinear, process, CLUSTER, lambda draw: noise(draw).bfloat16(), 3)
    assert sample.dtype == torch.float32


def test_philox_noise_is_standard_normal_and_its_draws_differ() -> None:
    """Mean 0, variance 1, no correlation between draws or seeds, same again for the same seed."""
    noise = philox_noise(range(200), 100)
    first, second = noise(0), noise(1)
    assert torch.equal(first, philox_noise(range(200), 100)(0))
    assert abs(float(first.mean())) < 0.03
    assert abs(float(first.std()) - 1) < 0.03
    assert abs(float((first * second).mean())) < 0.03
    assert abs(float((first[1:] * first[:-1]).mean())) < 0.03


def test_bad_arguments_are_refused(table: ShiftTable, draws: Draws) -> None:
    """Unknown variance, eta outside 0..1, timesteps that do not ascend to T."""
    process = ShiftedDiffusion(table, Schedule.linear())
    with pytest.raises(REFUSED):
        ancestral(nonlinear, process, CLUSTER, draws(5), 2, variance="medium")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="eta"):
        ddim(nonlinear, process, CLUSTER, draws(5), 2, eta=1.5)
    for steps in ([1, 999], [5, 5, 1000], [], [0, 1000], [1000, 1]):
        with pytest.raises(ValueError, match="timesteps must"):
            ddim(nonlinear, process, CLUSTER, draws(5), steps)


def test_a_rows_noise_is_that_of_its_seed_and_draw_whatever_was_drawn_before() -> None:
    noise = philox_noise([3, 2**40, 3], 5)
    for draw in (7, 0, 7, 2**29):
        rows = noise(draw)
        for row, seed in zip(rows, (3, 2**40, 3), strict=True):
            assert torch.equal(row[None], philox_noise([seed], 5)(draw))


def test_settings_offer_the_samplers_that_are_registered() -> None:
    assert tuple(samplers.SAMPLERS) == get_args(SamplerName)


@pytest.mark.law
@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4, 27])
@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_law_every_registered_sampler_ends_where_the_network_says(
    name: SamplerName, steps: int, schedule: str, table: ShiftTable, draws: Draws
) -> None:
    """A network sure of z_0 is believed: each chain ends there, whatever the table, start, noise and schedule."""
    truth = draws(5)(7)

    def sure(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        return truth.to(z.dtype)

    ended = samplers.SAMPLERS[name].sample(
        sure, ShiftedDiffusion(table, Schedule.named(schedule)), CLUSTER, draws(5), steps
    )
    close(ended, truth, 1e-5)


@pytest.mark.law
@pytest.mark.parametrize("schedule", ["linear", "cosine_zero_snr", "flow"])
def test_law_every_registered_sampler_ends_at_gaussian_data(schedule: str) -> None:
    """With the exact denoiser of N(0, 4) every sampler's draws have its standard deviation, also from pure noise on."""
    process = ShiftedDiffusion(ShiftTable.ddpm(1), Schedule.named(schedule))
    cluster, noise = torch.zeros(4000, dtype=torch.int64), philox_noise(range(4000), 1)

    def exact(z: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        signal, rest = (
            process.schedule.alpha_bar[t][:, None],
            process.schedule.one_minus_alpha_bar[t][:, None],
        )
        return (4 * signal.sqrt() / (4 * signal + rest)).to(z.dtype) * z

    for name, sampler in samplers.SAMPLERS.items():
        drawn = sampler.sample(exact, process, cluster, noise, 100)
        assert float(drawn.std()) == pytest.approx(2, rel=0.05), name


@pytest.mark.law
def test_law_euler_on_the_probability_flow_is_ddim(table: ShiftTable, draws: Draws) -> None:
    """In x = z / sqrt(abar) and sigma = sqrt((1 - abar) / abar), dx/dsigma = eps: Euler's steps are those of eq. 9."""
    process, noise = ShiftedDiffusion(table, Schedule.linear()), draws(5)
    kept = process.schedule.kept_timesteps(8)
    signal = process.schedule.alpha_bar.sqrt()
    sigma = process.schedule.one_minus_alpha_bar.sqrt() / signal
    x = noise(0) / signal[-1]
    for t, s in zip(kept[::-1], [0, *kept[:-1]][::-1], strict=True):
        times = torch.full((5,), t)
        z_0 = nonlinear(table.unwhiten(x * signal[t], CLUSTER), times, CLUSTER)
        eps = (x - table.whiten(z_0, CLUSTER)) / sigma[t]
        x = x + (sigma[s] - sigma[t]) * eps
    close(table.unwhiten(x, CLUSTER), ddim(nonlinear, process, CLUSTER, noise, 8), 1e-9)
