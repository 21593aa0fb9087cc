"""A small regression for tests of the training machinery: deterministic weights, rows and noise."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from corgi.feeding.noise import Noise
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.training.listing import COMMITTED
from corgi.training.objective import SecondAverage
from corgi.training.ranks import own_rows, rows_of_all
from corgi.training.training import Training
from tests.support.waiting import wait_until


class TinyRows:
    """Units of unequal size; `uid` is the row's number."""

    def __init__(self, counts: tuple[int, ...] = (37, 20, 51, 4), dim: int = 8) -> None:
        self.counts = list(counts)
        self.dim = dim
        self.loads: list[int] = []

    def load(self, unit: int) -> dict[str, np.ndarray]:
        self.loads.append(unit)
        first = sum(self.counts[:unit])
        uid = np.arange(first, first + self.counts[unit])
        x = np.stack([np.random.default_rng(u).standard_normal(self.dim, dtype=np.float32) for u in uid])
        return {"uid": uid, "x": x}


class Net(nn.Module):
    """Two layers with a table that must stay fp32, a layer norm and dropout."""

    table: Tensor

    def __init__(self, dim: int, dropout: float = 0.1, depth: int = 0) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 16)
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(dropout)
        self.outer = nn.Linear(16, dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Dropout(dropout)) for _ in range(depth)
        )
        self.register_buffer("table", torch.linspace(0.1, 0.7, dim) / 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(F.gelu(self.norm(self.inner(x + self.table))))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.outer(hidden)


class TinyObjective:
    """Predict the row from a noisy copy.

    `fault` harms each rank once at a step: {"kind": "raise"} on all ranks, {"kind": "kill"} or {"kind": "hang"} on the last one,
    {"kind": "evaluate"} on all ranks in the first evaluation;
    a NaN loss comes at every position of `bad`; the first layer does not learn where it is `frozen`; `second` is (decay, updates) of a second average; `log` is the prefix of the files that say which row came where.
    """

    def __init__(
        self,
        dim: int = 8,
        dropout: float = 0.1,
        log: str = "",
        fault: dict[str, Any] | None = None,
        bad: tuple[int, ...] = (),
        depth: int = 0,
        pause_s: float = 0.0,
        frozen: bool = False,
        second: tuple[float, int] | None = None,
    ) -> None:
        self.dim, self.dropout, self.log, self.fault, self.bad = dim, dropout, log, fault, bad
        self.depth, self.pause_s, self.frozen, self.second = depth, pause_s, frozen, second

    def place(self, device: torch.device) -> None:
        """All it reads comes with the batch."""

    def model(self) -> nn.Module:
        model = Net(self.dim, self.dropout, self.depth)
        model.inner.requires_grad_(not self.frozen)
        return model

    def second_average(self) -> SecondAverage | None:
        return None if self.second is None else SecondAverage(*self.second)

    def rows(self) -> TinyRows:
        return TinyRows(dim=self.dim)

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        positions = noise.positions.tolist()
        if self.log and torch.is_grad_enabled():
            with Path(f"{self.log}.{os.getpid()}").open("a") as handle:
                handle.writelines(f"{p} {u}\n" for p, u in zip(positions, batch["uid"].tolist(), strict=True))
        if (
            self.fault
            and self.fault["kind"] != "evaluate"
            and torch.is_grad_enabled()
            and positions[0] // self.fault["global_batch"] in _steps(self.fault)
        ):
            self._fail_once(self.fault, positions[0] // self.fault["global_batch"])
        if self.pause_s and torch.is_grad_enabled():
            time.sleep(self.pause_s)
        x = batch["x"]
        error = (model(x + 0.3 * noise.normal((self.dim,), 0)) - x).square().mean()
        if set(self.bad) & set(positions):
            error = error * float("nan")
        return error, {"level": noise.uniform(1).mean()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        x = torch.from_numpy(self.rows().load(0)["x"])
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert not model.training
        if self.fault and self.fault["kind"] == "evaluate":
            self._fail_once(self.fault, self.fault["step"])
        own = own_rows(len(x))
        part = x[own.start : own.stop]
        return {"error": float(rows_of_all((model(part) - part).square().mean(1)).mean())}

    def _fail_once(self, fault: dict[str, Any], step: int) -> None:
        marker = Path(f"{fault['marker']}.{step}.{dist.get_rank()}")
        if marker.exists():
            return
        marker.touch()
        for absent in range(dist.get_world_size(), 8):  # a later attempt with more workers repeats this step
            Path(f"{fault['marker']}.{step}.{absent}").touch()
        wait_until(lambda: _all_committed(fault["folder"]), "the checkpoints before the fault are committed")
        if fault["kind"] in ("raise", "evaluate"):
            raise InterruptedError("a fault the test asked for")
        if dist.get_rank() == dist.get_world_size() - 1:
            if fault["kind"] == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)


def _steps(fault: dict[str, Any]) -> list[int]:
    return fault["step"] if isinstance(fault["step"], list) else [fault["step"]]


def _all_committed(folder: str) -> bool:
    """Return whether no checkpoint is being written: a fault comes after it, however slow the disk."""
    return all((path / COMMITTED).exists() for path in Path(folder).glob("checkpoints/step-*"))


def tiny_training(
    folder: Path, name: str = "tiny", arguments: dict[str, Any] | None = None, **settings: Any
) -> Training:
    """Return a training of TinyObjective, 12 steps of 8 rows unless told otherwise."""
    values = {
        "num_steps": 12, "global_batch": 8, "lr": 0.01, "ema_decay": 0.9, "precision": "fp32", "shuffle_window": 2,
        "checkpoint_every_steps": 4, "log_every_steps": 3, "warmup_steps": 3, "lr_schedule": "cosine", **settings,
    }  # fmt: skip
    told = dict(arguments or {})
    if told.get("fault"):
        told["fault"] = {"folder": str(folder), **told["fault"]}
    return Training(
        name=name,
        folder=str(folder),
        objective=TinyObjective,
        arguments=told,
        settings=TrainingSettings(**values),
        tracking=TrackingSettings(mode="disabled"),
        group="tests",
        seed=5,
    )
