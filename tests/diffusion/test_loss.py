"""Laws of the loss and of the parameterisations (docs/method.md eq. 7, 13-16, 18, 25, 26)."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.diffusion.loss import (
    Metric,
    Noised,
    Parameterisation,
    WeightName,
    error_factor,
    from_x0,
    loss_weight,
    prediction_error,
    prediction_weight,
    squared_error,
    to_x0,
    weighted_loss,
)
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from tests.support.shapes import REFUSED

T_ALL = torch.arange(1, 1001)
TIMES, CLUSTER = torch.tensor([1, 2, 500, 999, 1000]), torch.tensor([0, 1, 2, 1, 0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise."""
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("schedule_name", ["linear", "cosine"])
def test_law_11_weights_eq_13_are_their_formulas(schedule_name: str) -> None:
    """Each name against numpy; the default of the reference is 1 - abar and P2 is its opposite, abar."""
    schedule = Schedule.named(schedule_name)
    abar = np.cumprod(1 - schedule.betas[1:].numpy())
    snr = abar / (1 - abar)
    formulas: dict[WeightName, np.ndarray] = {
        "uniform": np.ones(1000),
        "one_minus_abar": (1 + snr) ** -1.0,
        "snr": snr,
        "min_snr": np.minimum(snr, 5),
        "p2": snr / (1 + snr),
    }
    assert set(formulas) == set(get_args(WeightName))
    for name, expected in formulas.items():
        weight = loss_weight(schedule, T_ALL, name)
        assert weight.dtype == torch.float64
        np.testing.assert_allclose(weight, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(loss_weight(schedule, T_ALL, "one_minus_abar"), 1 - abar, atol=1e-12)
    np.testing.assert_allclose(loss_weight(schedule, T_ALL, "p2"), abar, atol=1e-12)
    with pytest.raises(REFUSED):
        loss_weight(schedule, T_ALL, "cubic")  # pyright: ignore[reportArgumentType]


def test_eq_14_loss_is_the_weighted_mean_over_dimensions_and_batch() -> None:
    """Against numpy, in float32 at least, also from bf16 predictions."""
    z_0, estimate, weight = normal(6, 4), normal(6, 4, seed=1), normal(6, seed=2).abs()
    expected = np.mean(weight.numpy() * np.mean((z_0 - estimate).numpy() ** 2, axis=1))
    assert float(weighted_loss(squared_error(z_0, estimate), weight)) == pytest.approx(expected, rel=1e-12)
    assert squared_error(z_0.float(), estimate.bfloat16()).dtype == torch.float32


def test_law_10_snr_weight_of_the_whitened_error_is_the_eps_error(table: ShiftTable) -> None:
    """|eps - eps-hat|^2 = SNR_t |z_0 - zhat|^2 in Sigma^-1."""
    schedule, z_t = Schedule.linear(), normal(5, 4)
    process, z_0, estimate = ShiftedDiffusion(table, schedule), normal(5, 4, seed=1), normal(5, 4, seed=2)
    eps, eps_hat = (from_x0(process, z, z_t, TIMES, CLUSTER, "eps") for z in (z_0, estimate))
    weighted = loss_weight(schedule, TIMES, "snr") * squared_error(z_0, estimate, table, CLUSTER)
    torch.testing.assert_close(squared_error(eps, eps_hat), weighted, rtol=1e-9, atol=1e-12)


def test_law_18_eps_eq_7_survives_the_round_trip(table: ShiftTable) -> None:
    """eps -> z_t (eq. 3) -> eps-hat(z_0) returns eps; 1e-9 in float64, 1e-4 in float32."""
    process, z_0, eps = ShiftedDiffusion(table, Schedule.linear()), normal(5, 4), normal(5, 4, seed=1)
    z_t = process.q_sample(z_0, TIMES, eps, CLUSTER)
    torch.testing.assert_close(from_x0(process, z_0, z_t, TIMES, CLUSTER, "eps"), eps, rtol=1e-9, atol=1e-9)
    late = torch.tensor([50, 100, 500, 999, 1000])
    z_t = process.q_sample(z_0.float(), late, eps.float(), CLUSTER)
    single = from_x0(process, z_0.float(), z_t, late, CLUSTER, "eps")
    torch.testing.assert_close(single, eps.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", get_args(Parameterisation))
def test_law_18_parameterisations_eq_15_and_16_agree(kind: Parameterisation, table: ShiftTable) -> None:
    """to_x0 inverts from_x0 for any z_t, on and off the path of z_0."""
    process, z_0, z_t = ShiftedDiffusion(table, Schedule.linear()), normal(5, 4), normal(5, 4, seed=1)
    prediction = from_x0(process, z_0, z_t, TIMES, CLUSTER, kind)
    torch.testing.assert_close(
        to_x0(process, prediction, z_t, TIMES, CLUSTER, kind), z_0, rtol=1e-9, atol=1e-9
    )


def test_eq_16_v_is_that_of_salimans_and_ho_after_whitening(table: ShiftTable) -> None:
    """v = sqrt(abar) eps - sqrt(1-abar) x_0 with numpy tables."""
    schedule, z_0, eps = Schedule.linear(), normal(5, 4), normal(5, 4, seed=1)
    process = ShiftedDiffusion(table, schedule)
    z_t = process.q_sample(z_0, TIMES, eps, CLUSTER)
    abar = np.cumprod(np.r_[1, 1 - np.linspace(1e-4, 2e-2, 1000)])[TIMES][:, None]
    expected = np.sqrt(abar) * eps.numpy() - np.sqrt(1 - abar) * table.whiten(z_0, CLUSTER).numpy()
    np.testing.assert_allclose(
        from_x0(process, z_0, z_t, TIMES, CLUSTER, "v"), expected, rtol=1e-8, atol=1e-9
    )


def test_eq_15_v_works_where_nothing_of_z_0_is_left() -> None:
    """At abar_T = 0, z_0 = mu - L v, finite."""
    table = ShiftTable(normal(1, 4), normal(1, 4, seed=1).abs() + 0.1)
    process, last = ShiftedDiffusion(table, Schedule.named("cosine_zero_snr")), torch.tensor([1000])
    zero, v, z_t = torch.zeros_like(last), normal(1, 4, seed=2), normal(1, 4, seed=3)
    torch.testing.assert_close(to_x0(process, v, z_t, last, zero, "v"), table.unwhiten(-v, zero))


def test_eq_26_flow_is_the_velocity_of_the_straight_path(table: ShiftTable) -> None:
    """d/ds of (1 - s) x_0 + s eps, and finite where nothing of z_0 is left: z_0 = z_t - L u there."""
    process, z_0, eps = ShiftedDiffusion(table, Schedule.flow(1000)), normal(5, 4), normal(5, 4, seed=1)
    z_t = process.q_sample(z_0, TIMES, eps, CLUSTER)
    velocity = from_x0(process, z_0, z_t, TIMES, CLUSTER, "flow")
    x_0 = table.whiten(z_0, CLUSTER)
    points = [(1 - s) * x_0 + s * eps for s in (0.3, 0.5)]
    torch.testing.assert_close(velocity, (points[1] - points[0]) / 0.2, rtol=1e-6, atol=1e-6)
    last, zero = torch.tensor([1000]), torch.tensor([0])
    left = to_x0(process, velocity[4:], z_t[4:], last, zero, "flow")
    torch.testing.assert_close(left, z_t[4:] - table.apply_L(velocity[4:], zero))


def test_eq_25_min_snr_weighs_each_prediction_as_its_authors_do() -> None:
    """min(SNR, 5), over SNR for eps, over SNR + 1 for v (Hang et al. 2023); without a name every weight is 1."""
    schedule = Schedule.linear()
    snr = schedule.snr[1:].numpy()
    capped = np.minimum(snr, 5)
    expected: dict[Parameterisation, np.ndarray] = {
        "x0": capped,
        "eps": capped / snr,
        "v": capped / (snr + 1),
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(prediction_weight(schedule, T_ALL, kind, "min_snr"), values, rtol=1e-9)
        assert bool((prediction_weight(schedule, T_ALL, kind, None) == 1).all())


@pytest.mark.parametrize("kind", get_args(Parameterisation))
def test_eq_25_a_weighted_prediction_error_is_the_weighted_x0_error(
    kind: Parameterisation, table: ShiftTable
) -> None:
    """Weight times |target - prediction|^2 is min(SNR, 5) times |z_0 - zhat|^2, in whitened coordinates."""
    process, z_0, z_t = ShiftedDiffusion(table, Schedule.linear()), normal(5, 4), normal(5, 4, seed=1)
    prediction = normal(5, 4, seed=2)
    weight = prediction_weight(process.schedule, TIMES, kind, "min_snr")
    target = from_x0(process, z_0, z_t, TIMES, CLUSTER, kind)
    if kind == "x0":  # the one that is not whitened
        target, prediction = (table.whiten(z, CLUSTER) for z in (target, prediction))
        estimate = table.unwhiten(prediction, CLUSTER)
    else:
        estimate = to_x0(process, prediction, z_t, TIMES, CLUSTER, kind)
    expected = loss_weight(process.schedule, TIMES, "min_snr") * squared_error(z_0, estimate, table, CLUSTER)
    torch.testing.assert_close(weight * squared_error(target, prediction), expected, rtol=1e-7, atol=1e-9)


def test_an_unknown_parameterisation_is_refused(table: ShiftTable) -> None:
    """Both directions raise ValueError."""
    process, z = ShiftedDiffusion(table, Schedule.linear()), normal(5, 4)
    for convert in (to_x0, from_x0):
        with pytest.raises(REFUSED):
            convert(process, z, z, TIMES, CLUSTER, "score")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("metric", ["euclidean", "whitened"])
@pytest.mark.parametrize("kind", get_args(Parameterisation))
def test_eq_18_the_error_of_a_prediction_is_that_of_its_z_0(
    kind: Parameterisation, metric: Metric, table: ShiftTable
) -> None:
    """Equals squared_error(to_x0(prediction)) in both metrics, where abar_t is not tiny."""
    process, z_0, z_t = ShiftedDiffusion(table, Schedule.linear()), normal(5, 4), normal(5, 4, seed=1)
    prediction, sample = normal(5, 4, seed=2), Noised(z_0, z_t, TIMES, CLUSTER)
    estimate = to_x0(process, prediction, z_t, TIMES, CLUSTER, kind)
    whitened = (table, CLUSTER) if metric == "whitened" else (None, None)
    expected = squared_error(z_0, estimate, *whitened)
    got = prediction_error(process, prediction, sample, kind, metric)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_eq_18_snr_weight_and_eps_factor_cancel_exactly() -> None:
    """The snr-weighted z_0 error of an eps network is the plain eps error: weight times factor is 1."""
    schedule = Schedule.linear()
    product = loss_weight(schedule, T_ALL, "snr") * error_factor(schedule, T_ALL, "eps")
    torch.testing.assert_close(product, torch.ones(1000).double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(error_factor(schedule, T_ALL, "v"), 1 - schedule.alpha_bar[1:])
