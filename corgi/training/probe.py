"""The loss on a fixed batch, which must be the same when a checkpoint is saved and after it is loaded; also the FLOPs per sample."""

import math

import torch
from torch import nn

from corgi.feeding.feed import Rows, tensors
from corgi.feeding.noise import Noise
from corgi.settings.errors import StorageError
from corgi.training.checkpoint import Checkpoint
from corgi.training.objective import Objective

_ROWS = 16
_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


class Probe:
    """A few rows of the first unit that has rows, with fixed noise, evaluated without dropout; every rank computes the same."""

    def __init__(self, objective: Objective, rows: Rows, seed: int, device: torch.device) -> None:
        """Read the rows."""
        self.objective = objective
        unit = next(unit for unit, count in enumerate(rows.counts) if count)
        loaded = {name: values[:_ROWS] for name, values in rows.load(unit).items()}
        self.columns = {name: values.to(device) for name, values in tensors(rows, loaded).items()}
        self.num_rows = len(next(iter(loaded.values())))
        self.noise = Noise(seed, torch.arange(self.num_rows), device)

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the loss; a collective under ZeRO-3."""
        was_training = model.training
        model.eval()
        try:
            value, _ = self.objective.loss(model, self.columns, self.noise)
        finally:
            model.train(was_training)
        return float(value)

    def train_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of training on one row: three times those of the forward pass, 2 per multiply-add."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.loss(model)
        return 3.0 * counter.get_total_flops() / self.num_rows

    def compare(self, model: nn.Module, checkpoint: Checkpoint, precision: str) -> None:
        """Compare the loss with the one stored in the checkpoint.

        Raises:
            StorageError: they differ, so the weights are not those that were saved.

        """
        before = checkpoint.state.get("probe")
        if before is None or not math.isfinite(before):
            return
        after = self.loss(model)
        if not abs(after - before) <= _TOLERANCE[precision] * max(1.0, abs(before)):
            raise StorageError(
                f"{checkpoint.folder} gives loss {after:.6g} on the fixed batch, but gave {before:.6g} when it was saved; nothing is lost; "
                f"set num_workers={checkpoint.state['world_size']} and zero_stage={checkpoint.zero_stage}, with which it was saved"
            )
