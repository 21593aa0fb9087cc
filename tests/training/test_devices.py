"""Every objective computes wholly on its device: its loss with every option, its evaluation and what it shows, on fake CUDA tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corgi.feeding.feed import tensors
from corgi.feeding.noise import Noise
from corgi.models.embedder import Sampling
from corgi.models.text_prior import TextPrior
from corgi.tables.run import Run
from corgi.training.ema import EarlierEma, Ema
from corgi.training.masters import shapes, shares
from corgi.training.objective import SecondAverage
from corgi.training.progress import Means
from tests.support.fake_cuda import CUDA, Watch, fake_cuda, to_cuda
from tests.support.objectives import (
    PRIOR,
    WITH_WORDS,
    add_words,
    decoder_objective,
    decoder_run,
    linear_autoencoder,
    prior_objective,
    prior_run,
    upsampler_objective,
)

STEPS: dict[str, Any] = {"sample_steps": 3}
"""The first step, one between and the last."""
ALONE = PRIOR.training.model_copy(update={"zero_stage": 0})
OPTIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "monte_carlo": {"cluster_choice": "monte_carlo", "choice_draws": 8},
    "soft": {"cluster_choice": "soft"},
    "learned choice": {"cluster_choice": "learned", "training": ALONE},
    "learned soft choice": {"cluster_choice": "learned_soft", "training": ALONE},
    "learned shift": {"learned_shift": True, "training": ALONE},
    "four levels": {"noise_levels_per_caption": 4},
    "v": {"prediction": "v"},
    "eps": {"prediction": "eps"},
    "bidirectional": {"causal": False},
    "rotary": {"rotary": True},
    "whitened metric": {"loss_metric": "whitened"},
    "raw network": {"standardise": False},
    "words": WITH_WORDS,
    **{f"weight {name}": {"loss_weight": name} for name in ("uniform", "snr", "min_snr", "p2")},
}
MOST_SYNCS, MOST_COPIES = 0, 1
"""Per loss: what may make the host wait, and what may be sent to the device (the rows' positions)."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = prior_run(tmp_path_factory.mktemp("prior"))
    add_words(made)
    return made


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = decoder_run(tmp_path_factory.mktemp("decoder"))
    add_words(made)
    return made


def one_loss(objective: Any) -> tuple[Tensor, Watch]:
    """Return a second loss of a fake GPU, and what it cost: the first one may fill tables."""
    rows = objective.rows()
    columns = tensors(rows, rows.load(0))
    positions = torch.arange(len(columns["image"]))
    with fake_cuda() as watch:
        objective.place(CUDA)
        model = to_cuda(objective.model())
        batch = {name: values.to(CUDA) for name, values in columns.items()}
        with torch.no_grad():
            objective.loss(model, batch, Noise(1, positions, CUDA))
            watch.syncs.clear()
            watch.copies.clear()
            loss, metrics = objective.loss(model, batch, Noise(1, positions, CUDA))
        assert all(value.device.type == "cuda" for value in metrics.values())
    return loss, watch


def check_cost(watch: Watch, copies: int = MOST_COPIES) -> None:
    assert watch.syncs.total() <= MOST_SYNCS, watch.syncs
    assert watch.copies.total() <= copies, watch.copies


@pytest.mark.parametrize("option", list(OPTIONS))
def test_the_priors_loss_stays_on_its_device_and_never_waits(run: Run, option: str) -> None:
    loss, watch = one_loss(prior_objective(run, **OPTIONS[option]))
    assert loss.device.type == "cuda"
    check_cost(watch)


@pytest.mark.parametrize("variant", ["standardised", "dalle2", "ddpm"])
def test_the_baselines_losses_do_too(run: Run, variant: str) -> None:
    loss, watch = one_loss(prior_objective(run, variant))
    assert loss.device.type == "cuda"
    check_cost(watch)


PAINTING: dict[str, dict[str, Any]] = {
    "mlp": {},
    "unet": {"network": "unet"},
    "dit": {"network": "dit"},
    "noise": {"conditioning_noise": 0.5},
    "noise told": {"conditioning_noise": 0.5, "noise_level_known": True},
    "x0": {"prediction": "x0"},
    "eps": {"prediction": "eps", "schedule": "linear", "zero_terminal_snr": False},
    "flow": {"prediction": "flow", "schedule": "flow"},
    "min_snr": {"loss_weight": "min_snr"},
    "neighbours": {"neighbours": 2},
    "regression": {"network": "unet", "regression": True},
    "caption words": {"network": "unet", **WITH_WORDS},
}


@pytest.mark.parametrize("option", list(PAINTING))
def test_the_decoders_loss_does_too(decoding: Run, option: str) -> None:
    loss, watch = one_loss(decoder_objective(decoding, **PAINTING[option]))
    assert loss.device.type == "cuda"
    check_cost(watch)


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_an_upsamplers_loss_does_too(decoding: Run, network: str) -> None:
    """Pictures are shrunk, enlarged and cut on the device."""
    crop = {"unet": 8, "dit": 0}[network]
    loss, watch = one_loss(upsampler_objective(decoding, network=network, crop=crop))
    assert loss.device.type == "cuda"
    check_cost(watch)


@pytest.mark.parametrize("option", ["text", "soft", "learned choice", "learned shift", "words", "v"])
def test_a_prior_is_evaluated_on_its_device(run: Run, option: str) -> None:
    objective = prior_objective(run, **OPTIONS[option], **STEPS)
    with fake_cuda() as watch, torch.no_grad():
        objective.place(CUDA)
        model = to_cuda(objective.model())
        watch.syncs.clear()
        figures = objective.evaluate(model)
    assert all(np.isfinite(value) for value in figures.values())
    assert watch.syncs.total() <= len(figures) + 2, watch.syncs  # two looks for NaN among the captions


def test_what_a_prior_shows_is_sampled_on_its_device(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shown_on(monkeypatch)
    objective = prior_objective(run, **STEPS)
    with fake_cuda(), torch.no_grad():
        objective.place(CUDA)
        objective.show(to_cuda(objective.model()))
    assert seen == ["cuda"]


def shown_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note from which device values are fetched to be shown; fake tensors have none to give."""
    seen: list[str] = []
    fetch = Tensor.cpu

    def cpu(value: Tensor) -> Tensor:
        seen.append(value.device.type)
        return torch.zeros(0) if value.device.type == "cuda" else fetch(value)

    monkeypatch.setattr(Tensor, "cpu", cpu)
    monkeypatch.setattr(Tensor, "numpy", lambda value: np.zeros(value.shape, _name(value.dtype)))
    return seen


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["mlp", "unet", "dit", "flow", "caption words", "regression"])
def test_the_decoder_is_evaluated_and_shown_on_its_device(
    decoding: Run, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = decoder_objective(decoding, **PAINTING[option], **STEPS)
    with fake_cuda() as watch, torch.no_grad():
        objective.place(CUDA)
        model = to_cuda(objective.model())
        watch.syncs.clear()
        assert objective.evaluate(model)
        assert watch.syncs.total() <= 1, watch.syncs
        seen = shown_on(monkeypatch)
        autoencoder = linear_autoencoder()
        monkeypatch.setattr("corgi.training.decoder.load_autoencoder", lambda *_: autoencoder)
        objective.show(model)
    assert seen == ["cuda"]


@pytest.mark.slow
def test_an_upsampler_is_evaluated_and_shown_on_its_device(
    decoding: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = upsampler_objective(decoding)
    with fake_cuda() as watch, torch.no_grad():
        objective.place(CUDA)
        model = to_cuda(objective.model())
        watch.syncs.clear()
        assert objective.evaluate(model)
        assert watch.syncs.total() <= 1, watch.syncs
        seen = shown_on(monkeypatch)
        objective.show(model)
    assert seen == ["cuda"]


@pytest.mark.parametrize("option", ["text", "learned shift"])
def test_a_prior_is_sampled_where_its_weights_are(run: Run, option: str) -> None:
    objective = prior_objective(run, **OPTIONS[option])
    with fake_cuda(), torch.no_grad():
        prior = TextPrior(to_cuda(objective.model().eval()), objective.process.to(CUDA), objective.choice)
        text = torch.zeros(4, objective.table.dim, device=CUDA)
        assert prior.sample(text, range(4), Sampling(2)).device.type == "cuda"


def test_averages_and_means_do_not_wait(run: Run) -> None:
    model = prior_objective(run).model()
    with fake_cuda() as watch:
        model = to_cuda(model)
        held, learning, means = shares(model), shapes(model), Means()
        averages = Ema(held, learning, 0.9, CUDA), EarlierEma(held, learning, SecondAverage(0.5, 4), CUDA)
        watch.syncs.clear()
        watch.copies.clear()
        for average in averages:
            average.update(3)
        means.add([{"loss": torch.zeros((), device=CUDA)}], [1.0])
    check_cost(watch, 0)


def test_the_watch_sees_what_the_fake_mode_lets_pass() -> None:
    """A CPU tensor indexed by a CUDA index, foreach over mixed devices, syncs and copies."""
    refused: list[Callable[[], Any]] = [
        lambda: torch.zeros(3)[torch.zeros(2, dtype=torch.int64, device=CUDA)],
        lambda: torch._foreach_add([torch.zeros(2, device=CUDA)], [torch.zeros(2)]),
        lambda: torch.zeros(2, device=CUDA) + torch.zeros(2),
    ]
    with fake_cuda() as watch:
        for call in refused:
            with pytest.raises(RuntimeError):
                call()
        value = torch.zeros(2, device=CUDA)
        assert bool((value > 0).any())
        value.to("cpu")
        torch.zeros(2).to(CUDA)
        assert value[torch.zeros(2, dtype=torch.int64)].shape == (2,)
    assert (watch.syncs.total(), watch.copies.total()) == (1, 3)
