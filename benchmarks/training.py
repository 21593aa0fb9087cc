"""The training loop beside torch's DistributedDataParallel on the same work: `make bench-training`.

Same world size, threads, dtype, batch, optimiser and model; rounds alternate, medians are quoted. Prints one line a figure
and writes benchmarks/results/training.json. `--forward-mflop` names the model's sizes, `--rounds` how often each is timed.
"""

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.figures import Figures, alternated, ratios
from benchmarks.precision import computed
from corgi.feeding.noise import Noise
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.training.loop import train_loop
from corgi.training.training import Training

WORLD, BATCH, TOKENS, DIM, DEPTH = 2, 16, 16, 64, 4
GOAL_RATIO, GOAL_STALL = 0.9, 0.02


class BenchRows:
    """Random sequences in one unit."""

    counts = (1024,)

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return the rows."""
        return {"x": np.random.default_rng(unit).standard_normal((1024, TOKENS, DIM), dtype=np.float32)}


class BenchObjective:
    """Reconstruct each of a sample's tokens through an MLP of a given width, as a transformer's layers work on tokens."""

    def __init__(self, width: int) -> None:
        """Take the width."""
        self.width = width

    def model(self) -> nn.Module:
        """Return the MLP."""
        inner = [layer for _ in range(DEPTH) for layer in (nn.Linear(self.width, self.width), nn.GELU())]
        return nn.Sequential(nn.Linear(DIM, self.width), *inner, nn.Linear(self.width, DIM))

    def rows(self) -> BenchRows:
        """Return the rows."""
        return BenchRows()

    def place(self, device: torch.device) -> None:
        """Hold nothing that has a device."""

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error."""
        return (model(batch["x"]) - batch["x"]).square().mean(), {}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: only speed is measured."""
        return {}


def width_of(mflop: float) -> int:
    """Return the width whose forward pass takes about so many MFLOP a sample, 2 a multiply-add."""
    return max(64, round((mflop * 1e6 / 2 / DEPTH / TOKENS) ** 0.5 / 16) * 16)


def settings_of(plan: dict[str, Any]) -> TrainingSettings:
    """Return the loop's settings; the averages are part of its work, the peer has none."""
    return TrainingSettings.model_validate(
        {
            "num_steps": plan["steps"], "global_batch": BATCH * WORLD, "lr": 1e-4, "precision": plan["precision"], "num_workers": WORLD,
            "checkpoint_every_steps": plan["every"], "log_every_steps": 10, "zero_stage": plan["stage"],
        }
    )  # fmt: skip


def ours(rank: int, port: int, folder: str, plan: dict[str, Any]) -> None:
    """Train by the loop; rank 0 leaves timings.jsonl, whose first lap is warm-up."""
    join(rank, port)
    training = Training(
        "bench", folder, BenchObjective, {"width": plan["width"]},
        settings_of(plan), TrackingSettings(mode="disabled"), "bench", 0,
    )  # fmt: skip
    train_loop(training)
    dist.destroy_process_group()


def peer(rank: int, port: int, folder: str, plan: dict[str, Any]) -> None:
    """Train by DistributedDataParallel and AdamW; the first ten steps are warm-up."""
    join(rank, port)
    torch.manual_seed(0)
    model = DistributedDataParallel(BenchObjective(plan["width"]).model())
    settings = settings_of(plan)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps)
    x = torch.from_numpy(BenchRows().load(0)["x"])
    started = 0.0
    for step in range(plan["steps"]):
        if step == 10:
            started = time.perf_counter()
        first = (step * WORLD + rank) * BATCH % len(x)
        batch = x[first : first + BATCH]
        with torch.autocast("cpu", torch.bfloat16, enabled=plan["precision"] == "bf16"):
            loss = (model(batch) - batch).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
    rate = (plan["steps"] - 10) * BATCH * WORLD / (time.perf_counter() - started)
    if rank == 0:
        Path(folder, "rate").write_text(str(rate))
    dist.destroy_process_group()


def join(rank: int, port: int) -> None:
    """Form the process group of one thread a worker."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD))
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")


def rate_of(body: Any, plan: dict[str, Any]) -> tuple[float, float]:
    """Return samples/s after warm-up and the share of time that went into checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(body, (29000 + os.getpid() % 2000, folder, plan), nprocs=WORLD)
        if body is peer:
            return float(Path(folder, "rate").read_text()), 0.0
        lines = [json.loads(line) for line in Path(folder, "timings.jsonl").read_text().splitlines()][1:]
        seconds = sum(10 * line["step_time_s"] for line in lines)
        stall = sum(line["checkpoint_share"] * 10 * line["step_time_s"] for line in lines)
        return 10 * len(lines) * BATCH * WORLD / (seconds - stall), stall / seconds


def main() -> None:
    """Time every size and type in alternating rounds and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forward-mflop", type=float, nargs="+", default=[10, 100, 400])
    parser.add_argument("--zero-stage", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    figures = Figures("training", "torch", "deepspeed", "ray")
    for mflop, precision in itertools.product(arguments.forward_mflop, computed(arguments.precision)):
        plan = {
            "width": width_of(mflop),
            "precision": precision,
            "steps": arguments.steps,
            "every": 10**6,
        }
        sides = [{**plan, "stage": stage} for stage in arguments.zero_stage]
        rates = alternated(
            arguments.rounds,
            functools.partial(_peer_rate, plan={**plan, "stage": 0}),
            *(functools.partial(_ours_rate, side) for side in sides),
        )
        for side, rate in zip(sides, rates[1:], strict=True):
            name = f"loop_over_ddp_{mflop:g}mflop_{precision}_stage{side['stage']}"
            goal = f">={GOAL_RATIO}" if mflop >= 100 and side["stage"] == 0 else ""
            figures.add_rounds(name, ratios(rate, rates[0]), "ratio", goal)
    figures.add("checkpoint_stall_demo_interval", demo_stall(), "share", f"<={GOAL_STALL}")
    figures.write()


def _peer_rate(plan: dict[str, Any]) -> float:
    return rate_of(peer, plan)[0]


def _ours_rate(plan: dict[str, Any]) -> float:
    return rate_of(ours, plan)[0]


def demo_stall() -> float:
    """Return the share of a training of the demo's decoder's size spent in checkpoints every 200 steps, after warm-up."""
    precision = computed(["bf16", "fp32"])[0]
    plan = {"width": 896, "precision": precision, "steps": 410, "every": 200, "stage": 1}
    return rate_of(ours, plan)[1]


if __name__ == "__main__":
    main()
