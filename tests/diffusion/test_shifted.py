"""Laws of the shift table and of the forward process (docs/method.md eq. 1-5, 7, 10, 11)."""

import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.samplers import ancestral, philox_noise
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable, check_finite, choose_cluster, first_largest
from tests.support.shapes import REFUSED

TableAndSigma = tuple[ShiftTable, np.ndarray]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def close(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, rel: float) -> None:
    """Assert max abs error / max(1, max abs) <= rel."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= rel * max(1.0, np.abs(expected).max())


def path_moments(betas: np.ndarray, z_0: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> list[tuple]:
    """Mean and covariance of z_t | z_0 for t = 0..T by composing single transitions."""
    mean, covariance = z_0, np.zeros_like(sigma)
    moments = [(mean, covariance)]
    for beta in betas:
        root = np.sqrt(1 - beta)
        mean = root * mean + (1 - root) * mu
        covariance = (1 - beta) * covariance + beta * sigma
        moments.append((mean, covariance))
    return moments


def test_L_is_a_root_of_sigma_and_solve_inverts_it(table_and_sigma: TableAndSigma) -> None:
    """L L^T = Sigma and L^-1 L = I for every cluster and form."""
    table, sigma = table_and_sigma
    for k in range(3):
        cluster = torch.full((4,), k)
        root = table.apply_L(torch.eye(4, dtype=torch.float64), cluster).mT
        close(root @ root.mT, sigma[k], 1e-12)
        close(table.solve_L(root.mT, cluster), np.eye(4), 1e-12)


def test_whitening_eq_10_round_trips(table: ShiftTable) -> None:
    """unwhiten(whiten(z)) = z with a different cluster per sample."""
    z, cluster = normal(3, 4), torch.tensor([2, 0, 1])
    close(table.unwhiten(table.whiten(z, cluster), cluster), z, 1e-12)
    close(table.unwhiten(torch.zeros_like(z), cluster), table.mean[cluster], 0)


def test_full_table_with_diagonal_sigma_equals_the_diagonal_table() -> None:
    """The two paths agree to 1e-12, on noise and on its inverse."""
    mean, scale = normal(2, 4), normal(2, 4).abs() + 0.1
    diagonal, full = ShiftTable(mean, scale), ShiftTable.from_covariance(mean, torch.diag_embed(scale**2))
    eps, cluster = normal(5, 4, seed=1), torch.tensor([0, 1, 1, 0, 1])
    close(full.apply_L(eps, cluster), diagonal.apply_L(eps, cluster), 1e-12)
    close(full.whiten(eps, cluster), diagonal.whiten(eps, cluster), 1e-12)


def test_law_01_marginal_eq_2_is_the_composition_of_transitions_eq_1(table_and_sigma: TableAndSigma) -> None:
    """Composing q(z_t | z_{t-1}) t times gives q(z_t | z_0), for every t, with independent recursion."""
    table, sigma = table_and_sigma
    schedule, z_0 = Schedule.linear(), normal(1, 4)
    process, t = ShiftedDiffusion(table, schedule), torch.arange(1001)
    for k in range(3):
        law = process.marginal(z_0.expand(1001, -1), t, torch.full((1001,), k))
        moments = path_moments(schedule.betas[1:].numpy(), z_0[0].numpy(), table.mean[k].numpy(), sigma[k])
        close(law.mean, np.stack([mean for mean, _ in moments]), 1e-12)
        close(law.variance[:, None, None].numpy() * sigma[k], np.stack([c for _, c in moments]), 1e-12)


def test_law_01_transition_eq_1_is_one_step_of_the_recursion(table: ShiftTable) -> None:
    """The transition function itself: sqrt(alpha_t) z + (1 - sqrt(alpha_t)) mu, variance beta_t."""
    schedule, z, cluster = Schedule.cosine(), normal(1000, 4), torch.arange(1000) % 3
    law = ShiftedDiffusion(table, schedule).transition(z, torch.arange(1, 1001), cluster)
    root = np.sqrt(1 - schedule.betas[1:].numpy())[:, None]
    close(law.mean, root * z.numpy() + (1 - root) * table.mean[cluster].numpy(), 1e-12)
    close(law.variance, schedule.betas[1:], 1e-15)


def test_eq_3_q_sample_is_mean_plus_root_variance_times_L_eps(table: ShiftTable) -> None:
    """z_t = mu + sqrt(abar)(z_0 - mu) + sqrt(1 - abar) L eps, written out."""
    schedule, z_0, eps = Schedule.linear(), normal(6, 4), normal(6, 4, seed=2)
    t, cluster = torch.tensor([0, 1, 2, 500, 999, 1000]), torch.tensor([0, 1, 2, 0, 1, 2])
    abar = np.cumprod(1 - np.r_[0, np.linspace(1e-4, 2e-2, 1000)])[t][:, None]
    mu = table.mean[cluster].numpy()
    expected = (
        mu + np.sqrt(abar) * (z_0.numpy() - mu) + np.sqrt(1 - abar) * table.apply_L(eps, cluster).numpy()
    )
    close(ShiftedDiffusion(table, schedule).q_sample(z_0, t, eps, cluster), expected, 1e-12)


@pytest.mark.parametrize("stride", [1, 143])
def test_law_02_posterior_eq_4_is_gaussian_conditioning(table_and_sigma: TableAndSigma, stride: int) -> None:
    """q(z_s | z_t, z_0) equals brute-force conditioning of the joint Gaussian, all t, steps and jumps."""
    table, sigma = table_and_sigma
    schedule, k = Schedule.linear(), 1
    z_0, z_t, t = normal(1, 4), normal(1000, 4, seed=3), torch.arange(1, 1001)
    s = (t - stride).clamp(min=0)
    law = ShiftedDiffusion(table, schedule).posterior(z_0.expand(1000, -1), z_t, t, s, torch.full((1000,), k))
    betas = schedule.betas[1:].numpy()
    moments = path_moments(betas, z_0[0].numpy(), table.mean[k].numpy(), sigma[k])
    for i in range(1000):
        (mean_s, cov_s), (mean_t, cov_t) = moments[int(s[i])], moments[i + 1]
        gain = np.sqrt(np.prod(1 - betas[int(s[i]) : i + 1])) * cov_s @ np.linalg.inv(cov_t)
        close(law.mean[i], mean_s + gain @ (z_t[i].numpy() - mean_t), 1e-10)
        close(law.variance[i].numpy() * sigma[k], cov_s - gain @ cov_t @ gain.T, 1e-10)


def test_law_03_posterior_eq_4_follows_from_the_path_precision_and_is_markov(
    table_and_sigma: TableAndSigma,
) -> None:
    """From the block-tridiagonal precision of a 6-step path; knowing z_{t+1} as well changes nothing."""
    table, sigma = table_and_sigma
    betas, k, d, n = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.6]), 2, 4, 6
    mu, inverse = table.mean[k].numpy(), np.linalg.inv(sigma[k])
    precision, linear = np.zeros((n * d, n * d)), np.zeros(n * d)
    z_0 = normal(1, d)
    for i, beta in enumerate(betas):
        root, block = np.sqrt(1 - beta), slice(i * d, (i + 1) * d)
        offset = (1 - root) * mu + (root * z_0[0].numpy() if i == 0 else 0)
        precision[block, block] += inverse / beta
        linear[block] += inverse @ offset / beta
        if i:
            before = slice((i - 1) * d, i * d)
            precision[before, before] += root**2 * inverse / beta
            precision[before, block] -= root * inverse / beta
            precision[block, before] -= root * inverse / beta
            linear[before] -= root * inverse @ offset / beta
    covariance = np.linalg.inv(precision)
    mean, path = covariance @ linear, np.random.default_rng(5).normal(size=n * d)
    process = ShiftedDiffusion(table, Schedule.from_betas(torch.tensor(betas)))
    for t in range(2, n):
        wanted, now, later = np.split(np.arange(n * d), n)[t - 2 : t + 1]
        z_t = torch.tensor(path[now])[None]
        law = process.posterior(z_0, z_t, torch.tensor([t]), torch.tensor([t - 1]), torch.tensor([k]))
        for known in (now, np.r_[now, later]):
            gain = covariance[np.ix_(wanted, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
            close(law.mean[0], mean[wanted] + gain @ (path[known] - mean[known]), 1e-9)
            rest = covariance[np.ix_(wanted, wanted)] - gain @ covariance[np.ix_(known, wanted)]
            close(law.variance[0].numpy() * sigma[k], rest, 1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "linear_zero_snr"])
def test_law_04_posterior_eq_4_at_t_1_is_a_point_mass_on_z_0(table: ShiftTable, name: str) -> None:
    """c1 = 1, c2 = 0, btilde = 0, no NaN, also for jumps from any t to 0."""
    t = torch.tensor([1, 2, 500, 1000])
    z_0, z_t, cluster = normal(4, 4), normal(4, 4, seed=1), torch.tensor([0, 1, 2, 0])
    law = ShiftedDiffusion(table, Schedule.named(name)).posterior(z_0, z_t, t, torch.zeros_like(t), cluster)
    close(law.mean, z_0, 1e-12)
    assert bool((law.variance == 0).all())


def test_law_07_translation_equivariance(table: ShiftTable) -> None:
    """Moving mu, z_0 and z_t by c moves every mean by c and no variance."""
    schedule, c = Schedule.linear(), normal(1, 4, seed=9) * 3
    state = table.state_dict()
    moved = ShiftTable.from_state({**state, "mean": state["mean"] + c})
    z_0, z_t, eps = normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    t, cluster = torch.tensor([1, 2, 300, 999, 1000]), torch.tensor([0, 1, 2, 1, 0])
    here, there = ShiftedDiffusion(table, schedule), ShiftedDiffusion(moved, schedule)
    close(there.q_sample(z_0 + c, t, eps, cluster), here.q_sample(z_0, t, eps, cluster) + c, 1e-12)
    close(there.transition(z_0 + c, t, cluster).mean, here.transition(z_0, t, cluster).mean + c, 1e-12)
    posterior = here.posterior(z_0, z_t, t, t - 1, cluster)
    shifted = there.posterior(z_0 + c, z_t + c, t, t - 1, cluster)
    close(shifted.mean, posterior.mean + c, 1e-12)
    close(shifted.variance, posterior.variance, 1e-15)
    close(there.start(eps, cluster), here.start(eps, cluster) + c, 1e-12)


def test_law_08_the_start_law_is_stationary(table_and_sigma: TableAndSigma) -> None:
    """z_0 ~ N(mu, Sigma) gives z_t ~ N(mu, Sigma) for every t: moments through the affine map of eq. 2."""
    table, sigma = table_and_sigma
    process, t = ShiftedDiffusion(table, Schedule.linear()), torch.arange(1001)
    cluster = torch.full((1001,), 1)
    at_mu = process.marginal(table.mean[1].expand(1001, -1), t, cluster)
    close(at_mu.mean, table.mean[1].expand(1001, -1), 1e-12)
    columns = [
        process.marginal((table.mean[1] + unit).expand(1001, -1), t, cluster).mean - at_mu.mean
        for unit in torch.eye(4, dtype=torch.float64)
    ]
    gain = torch.stack(columns, dim=-1).numpy()
    covariance = gain @ sigma[1] @ gain.transpose(0, 2, 1) + at_mu.variance[:, None, None].numpy() * sigma[1]
    close(covariance, np.broadcast_to(sigma[1], (1001, 4, 4)), 1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_law_09_terminal_kl_is_small_and_equals_its_formula(name: str) -> None:
    """KL(q(z_T | z_0) to N(mu, Sigma)) from eq. 2 = .5(-d abar - d log(1-abar) + abar M^2), < 0.05 nats at d = 512."""
    d, schedule = 512, Schedule.named(name)
    table = ShiftTable(normal(1, d), normal(1, d, seed=1).abs() + 0.1)
    direction = normal(1, d, seed=2)
    zero, cluster = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    z_0 = table.unwhiten(direction * (d / direction.square().sum()).sqrt(), cluster)
    law = ShiftedDiffusion(table, schedule).marginal(z_0, zero + 1000, cluster)
    q, p = law.variance.numpy() * table.scale[0].numpy() ** 2, table.scale[0].numpy() ** 2
    generic = 0.5 * np.sum(q / p - 1 - np.log(q / p) + (law.mean - table.mean)[0].numpy() ** 2 / p)
    abar = np.prod(1 - schedule.betas.numpy())
    formula = 0.5 * (-d * abar - d * np.log1p(-abar) + abar * d)
    assert generic == pytest.approx(formula, abs=1e-9)
    assert generic < 0.05


def test_law_10_posterior_kl_is_an_snr_difference(table_and_sigma: TableAndSigma) -> None:
    """KL between the posteriors of z_0 and of zhat = .5 (SNR_s - SNR_t) |z_0 - zhat|^2 in Sigma^-1."""
    table, sigma = table_and_sigma
    schedule, cluster = Schedule.linear(), torch.tensor([0, 1, 2, 0])
    t, s = torch.tensor([2, 100, 700, 1000]), torch.tensor([1, 99, 300, 857])
    z_0, estimate, z_t = normal(4, 4), normal(4, 4, seed=1), normal(4, 4, seed=2)
    process = ShiftedDiffusion(table, schedule)
    true, model = (process.posterior(z, z_t, t, s, cluster) for z in (z_0, estimate))
    abar = np.cumprod(1 - schedule.betas.numpy())
    snr = abar[1:] / (1 - abar[1:])
    for i in range(4):
        inverse = np.linalg.inv(sigma[int(cluster[i])])
        gap, delta = (true.mean - model.mean)[i].numpy(), (z_0 - estimate)[i].numpy()
        kl = 0.5 * gap @ inverse @ gap / float(true.variance[i])
        expected = 0.5 * (snr[int(s[i]) - 1] - snr[int(t[i]) - 1]) * delta @ inverse @ delta
        assert kl == pytest.approx(expected, rel=1e-9)


def test_law_20_scaling_the_data_is_a_smaller_sigma() -> None:
    """c z under N(0, I) = c times z under (0, I/c^2), with shared noise; sqrt(d) is the DALL-E 2 table."""
    schedule, z_0, z_t, eps = Schedule.linear(), normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    t, cluster, c = torch.tensor([1, 2, 300, 999, 1000]), torch.zeros(5, dtype=torch.int64), 2.0
    plain = ShiftedDiffusion(ShiftTable.ddpm(4, torch.float64), schedule)
    small = ShiftedDiffusion(ShiftTable.dalle2(4, torch.float64), schedule)
    close(c * small.q_sample(z_0, t, eps, cluster), plain.q_sample(c * z_0, t, eps, cluster), 1e-12)
    posterior = plain.posterior(c * z_0, c * z_t, t, t - 1, cluster)
    close(c * small.posterior(z_0, z_t, t, t - 1, cluster).mean, posterior.mean, 1e-12)


def test_law_21_cluster_choice_eq_11_ignores_text_scale_and_follows_a_permutation() -> None:
    """Independent numpy argmax; scaling text changes nothing; permuting clusters permutes indices."""
    mean, text = normal(7, 5), normal(50, 5, seed=1)
    unit = [rows.numpy() / np.linalg.norm(rows.numpy(), axis=1, keepdims=True) for rows in (text, mean)]
    expected = torch.tensor((unit[0] @ unit[1].T).argmax(axis=1))
    assert torch.equal(choose_cluster(text, mean), expected)
    assert torch.equal(choose_cluster(1000 * text, mean), expected)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    assert torch.equal(order[choose_cluster(text, mean[order])], expected)


def test_law_21_ties_go_to_the_lowest_index_and_nan_is_refused() -> None:
    """Duplicate means: the first; NaN: one-line ValueError, and without that check an index that exists."""
    mean = normal(3, 64)[[0, 1, 1, 2, 0]]
    assert choose_cluster(mean, mean).tolist() == [0, 1, 1, 3, 0]
    assert first_largest(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="NaN"):
        check_finite(torch.full((1, 64), float("nan")))
    assert choose_cluster(torch.full((1, 64), float("nan")).double(), mean).tolist() == [4]


def test_law_22_state_dict_round_trip_keeps_every_bit_and_the_spread(table: ShiftTable) -> None:
    """Saved and loaded: equal buffers, bit-equal samples, spread of the start as before and > 0."""
    file = io.BytesIO()
    table = ShiftTable.from_state({**table.state_dict(), "count": torch.tensor([5, 1, 9])})
    torch.save(table.state_dict(), file)
    file.seek(0)
    loaded = ShiftTable.from_state(torch.load(file, weights_only=True))
    for name, value in table.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    cluster = torch.arange(3).repeat_interleave(400)
    samples = [
        ancestral(
            lambda z, t, c: 0.5 * z,
            ShiftedDiffusion(one, Schedule.linear()),
            cluster,
            philox_noise(range(1200), 4),
            4,
        )
        for one in (table, loaded)
    ]
    assert torch.equal(*samples)
    start = loaded.apply_L(normal(1200, 4), cluster)
    true = torch.diagonal(torch.stack([torch.cov(start[cluster == k].mT) for k in range(3)]), dim1=1, dim2=2)
    wanted = torch.stack(
        [table.apply_L(torch.eye(4).double(), torch.full((4,), k)).square().sum(0) for k in range(3)]
    )
    assert bool(((true / wanted).sqrt() - 1).abs().max() < 0.1)


def test_law_22_loading_into_an_existing_table_needs_no_second_step(table: ShiftTable) -> None:
    """load_state_dict alone restores L: the derived low-rank root follows the loaded factor."""
    other = ShiftTable.from_state({name: value + 1 for name, value in table.state_dict().items()})
    other.load_state_dict(table.state_dict())
    eps, cluster = normal(3, 4), torch.tensor([0, 1, 2])
    assert torch.equal(other.apply_L(eps, cluster), table.apply_L(eps, cluster))
    assert torch.equal(other.whiten(eps, cluster), table.whiten(eps, cluster))


def test_casting_the_network_does_not_round_the_table(table: ShiftTable) -> None:
    """A bf16 or fp16 cast around the table leaves its float64 buffers bit-equal."""
    before = {name: value.clone() for name, value in table.state_dict().items()}
    torch.nn.Sequential(table).bfloat16().half()
    assert all(torch.equal(value, before[name]) for name, value in table.state_dict().items())
    assert table.mean.dtype == torch.float64


def test_a_table_without_spread_is_refused() -> None:
    """Zero, NaN or misshapen parameters raise ValueError; `clusters` floors dead dimensions instead."""
    mean, scale = torch.zeros(2, 3), torch.ones(2, 3)
    dead = scale.clone()
    dead[1, 2] = 0
    with pytest.raises(ValueError, match="> 0"):
        ShiftTable(mean, dead)
    with pytest.raises(ValueError, match="NaN"):
        ShiftTable(mean, dead.log())
    with pytest.raises(REFUSED):
        ShiftTable(mean, scale[:1])
    with pytest.raises(REFUSED):
        ShiftTable(mean, scale, torch.ones(2, 3, 1), torch.eye(3).expand(2, 3, 3))
    floored = ShiftTable.clusters(mean, dead, c=5.0)
    assert float(floored.scale.min()) == pytest.approx(5e-3)
    assert float(floored.scale.max()) == 5


def test_standardised_is_the_one_cluster_table() -> None:
    """mean and std become a table of one cluster that whitens the data they came from."""
    data = normal(1000, 4) * 3 + 2
    table = ShiftTable.standardised(data.mean(0), data.std(0))
    white = table.whiten(data, torch.zeros(1000, dtype=torch.int64))
    close(white.mean(0), np.zeros(4), 1e-12)
    close(white.std(0), np.ones(4), 1e-12)


def test_law_22_loading_a_table_without_spread_is_refused() -> None:
    """Zeros restored into an existing table are refused as at construction."""
    table = ShiftTable.ddpm(3)
    with pytest.raises(ValueError, match="> 0"):
        table.load_state_dict({**table.state_dict(), "scale": torch.zeros(1, 3)})


def test_a_table_survives_pickling(table: ShiftTable) -> None:
    """Workers receive tables by pickle."""
    copy = pickle.loads(pickle.dumps(table))
    eps, cluster = normal(3, 4), torch.tensor([0, 1, 2])
    assert torch.equal(copy.apply_L(eps, cluster), table.apply_L(eps, cluster))
