"""Every latent space computes wholly on its device: its loss, its figures, its pictures to latents and back, on fake CUDA tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corgi.feeding.noise import Noise
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.latent_spaces import CODECS
from corgi.models.perceptual import Features
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.names import LatentSpaceName
from corgi.tables.run import Run
from tests.latents.test_objective import SIDE, objective
from tests.models.test_latent_spaces import CONFIGS
from tests.support.fake_cuda import CUDA, fake_cuda, to_cuda
from tests.support.tables import tiny_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("name", ["linear", *CODECS])
def test_pictures_become_latents_and_come_back_on_the_device(name: LatentSpaceName) -> None:
    if name == "linear":
        pixels = 3 * SIDE * SIDE
        space: Any = LinearAutoencoder(torch.zeros(pixels), torch.ones(6, pixels), torch.ones(6))
    else:
        space = SpatialAutoencoder(CODECS[name](CONFIGS[name]), SIDE)
    with fake_cuda() as watch, torch.no_grad():
        space = to_cuda(space)
        watch.syncs.clear()
        watch.copies.clear()
        latents = space.encode(torch.zeros(3, 3, SIDE, SIDE, device=CUDA))
        assert latents.device.type == "cuda"
        assert space.decode(latents).device.type == "cuda"
    assert (watch.syncs.total(), watch.copies.total()) == (0, 0), (watch.syncs, watch.copies)


def test_an_adversarial_loss_never_waits(run: Run) -> None:
    made = objective(run, kind="vq", adversarial={"weight": 0.1, "start": 0.0, "widths": [8, 16]})
    with fake_cuda() as watch, torch.no_grad():
        made.place(CUDA)
        model = to_cuda(made.model())
        batch = {"picture": torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)}
        watch.syncs.clear()
        loss, metrics = made.loss(model, batch, Noise(1, torch.arange(4), CUDA))
    assert {value.device.type for value in (loss, *metrics.values())} == {"cuda"}
    assert len(metrics) == 4
    assert watch.syncs.total() == 0, watch.syncs


def test_a_learned_codebook_moves_without_a_wait(run: Run) -> None:
    """After its start, which reads pictures, no step asks the device for anything."""
    quantiser = {"codebook": "ema", "num_codes": 8}
    made = objective(run, kind="vq", quantiser=quantiser, training={"global_batch": 4, "zero_stage": 0})
    with fake_cuda() as watch, torch.no_grad():
        made.place(CUDA)
        model = to_cuda(made.model())
        batch = {"picture": torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)}
        second, third = Noise(1, torch.arange(4), CUDA), Noise(1, torch.arange(4), CUDA)
        second.first, third.first = 4, 8  # a fake position has no value
        made.loss(model, batch, second)
        watch.syncs.clear()
        watch.copies.clear()
        loss, metrics = made.loss(model, batch, third)
    assert {value.device.type for value in (loss, *metrics.values())} == {"cuda"}
    assert watch.syncs.total() == 0, watch.syncs
    assert watch.copies.total() <= 1, watch.copies


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_loss_never_waits_and_figures_and_grids_are_made_on_the_device(
    run: Run, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = objective(run, tmp_path, kind, quantiser={"min_code_use": 0})
    monkeypatch.setattr(Features, "to", lambda features, _: to_cuda(features))
    with fake_cuda() as watch, torch.no_grad():
        made.place(CUDA)
        model = to_cuda(made.model())
        batch = {"picture": torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8, device=CUDA)}
        made.loss(model, batch, Noise(0, torch.arange(4), CUDA))
        watch.syncs.clear()
        watch.copies.clear()
        loss, metrics = made.loss(model, batch, Noise(1, torch.arange(4), CUDA))
        assert {value.device.type for value in (loss, *metrics.values())} == {"cuda"}
        assert watch.syncs.total() == 0, watch.syncs
        assert watch.copies.total() <= 1, watch.copies
        bytes_or_floats = {torch.uint8: np.uint8}
        monkeypatch.setattr(
            torch.Tensor,
            "numpy",
            lambda value: np.zeros(value.shape, bytes_or_floats.get(value.dtype, np.float32)),
        )
        if kind == "kl":  # how many codes differ is a value, and fake tensors have none
            assert made.evaluate(model)
        monkeypatch.setattr(torch.Tensor, "cpu", lambda value: torch.zeros(0))
        assert "reconstructions" in made.show(model).pictures
