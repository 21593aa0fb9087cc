"""Arms of a comparison compute wholly on their device, on fake CUDA tensors."""

import pytest
import torch

from corgi.feeding.feed import tensors
from corgi.feeding.noise import Noise
from tests.support.fake_cuda import CUDA, fake_cuda, to_cuda


@pytest.mark.parametrize("arm", ["dalle2", "regression", "eclipse"])
def test_an_arms_loss_never_waits_and_it_is_evaluated_on_its_device(arm: str, objective_of) -> None:
    objective = objective_of(arm)
    rows = objective.rows()
    columns = tensors(rows, rows.load(0))
    positions = torch.arange(len(columns["image"]))
    with fake_cuda() as watch, torch.no_grad():
        objective.place(CUDA)
        model = to_cuda(objective.model())
        batch = {name: values.to(CUDA) for name, values in columns.items()}
        objective.loss(model, batch, Noise(1, positions, CUDA))  # the first may fill tables
        watch.syncs.clear()
        watch.copies.clear()
        loss, metrics = objective.loss(model, batch, Noise(1, positions, CUDA))
        assert watch.syncs.total() == 0, watch.syncs
        assert watch.copies.total() <= 1, watch.copies
        figures = objective.evaluate(model)
    assert figures
    assert {value.device.type for value in (loss, *metrics.values())} == {"cuda"}
