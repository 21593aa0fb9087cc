"""What rank 0 decides by its clock and every rank must do at the same step: saving a checkpoint, or checking for a preemption notice."""

import time
from typing import Any

import torch
import torch.distributed as dist

from corgi.training.ranks import rank, world_size

_SAVE, _LOOK = 1, 2


class Agreement:
    """Rank 0's decisions, broadcast asynchronously one step late, so that no step waits for them."""

    def __init__(self, save_every_s: float, look_every_s: float) -> None:
        """Start both clocks; if `save_every_s` is 0, the clock never asks for a checkpoint."""
        self.save_every_s, self.look_every_s = save_every_s, look_every_s
        self._saved = self._looked = time.monotonic()
        self._sent: tuple[torch.Tensor, Any] | None = None
        backend = dist.get_backend() if world_size() > 1 else "gloo"
        self._group: Any = dist.new_group(backend="gloo") if backend != "gloo" else None

    def next(self) -> tuple[bool, bool]:
        """Return whether to save and whether to check for a notice, the same on every rank; call once per step."""
        if world_size() == 1:
            decision = self._wish()
        else:
            decision = self._heard()
            value = torch.tensor([self._wish() if rank() == 0 else 0], dtype=torch.int32)
            self._sent = value, dist.broadcast(value, 0, group=self._group, async_op=True)
        return bool(decision & _SAVE), bool(decision & _LOOK)

    def saved(self) -> None:
        """Restart the checkpoint clock."""
        self._saved = time.monotonic()

    def _heard(self) -> int:
        if self._sent is None:
            return 0
        value, work = self._sent
        work.wait()
        return int(value.item())

    def _wish(self) -> int:
        now = time.monotonic()
        decision = _SAVE if self.save_every_s and now - self._saved >= self.save_every_s else 0
        if now - self._looked >= self.look_every_s:
            self._looked = now
            decision |= _LOOK
        return decision
