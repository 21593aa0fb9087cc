"""What checkpoints cost a training: `make bench-checkpoint`.

A training of the demo's decoder's size saves every 200 steps: once as it does, by a thread that writes while the training goes on, and
once waiting for each commit. Rounds alternate. Then the copy that a step waits for, the bytes/s of a commit behind it, and, by these
constants, the stall of the 1.1 B prior on 64 H100. Prints one line a figure and writes benchmarks/results/checkpoint.json.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.figures import Figures, alternated
from benchmarks.precision import computed
from benchmarks.training import ours, rate_of
from corgi.training.checkpoint import Checkpoints
from corgi.training.snapshot import HostBuffers, snapshot
from tests.support.tiny_training import tiny_training

GOAL_STALL = 0.02
EVERY, STEPS = 200, 410
COPIED_MIB, COPIES = 512, 5
PRIOR_WEIGHTS, NUM_GPUS, STEP_S, PRIOR_EVERY = 1.118e9, 64, 0.085, 1000
"""corgi.yaml on 64 H100 at 40 % of the peak: a step takes 85 ms."""


def waiting(rank: int, port: int, folder: str, plan: dict[str, Any]) -> None:
    """Train by the loop with every commit waited for."""
    begin = Checkpoints.begin

    def begun_and_ended(
        self: Checkpoints, step: int, state: Mapping[str, object], write: Callable[[Path], None]
    ) -> None:
        begin(self, step, state, write)
        self.wait()

    Checkpoints.begin = begun_and_ended
    ours(rank, port, folder, plan)


def stall(body: Any, plan: dict[str, Any]) -> float:
    """Return the share of the steps' time, after warm-up, that went into checkpoints."""
    return rate_of(body, plan)[1]


def state_of(mib: int) -> dict[str, torch.Tensor]:
    """Return a state of so many MiB in tensors of 16 MiB."""
    return {str(number): torch.randn(4 * 2**20) for number in range(mib // 16)}


def engine_of(state: object) -> Any:
    """Return what stands for DeepSpeed's engine: it hands one file's state to its checkpoint engine."""
    writer: Any = SimpleNamespace(save=torch.save)

    def save_checkpoint(folder: str, tag: str, save_latest: bool) -> None:
        writer.save(state, f"{folder}/{tag}/states.pt")

    return SimpleNamespace(checkpoint_engine=writer, save_checkpoint=save_checkpoint)


def copied_and_committed(mib: int) -> tuple[float, float, float]:
    """Return bytes/s of the copy that a step waits for, the first time and every later time, and of the commit behind it.

    The first copy makes its memory. A commit is written, synced, hashed and published.
    """
    engine, buffers, num_bytes = engine_of(state_of(mib)), HostBuffers(), mib * 2**20
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(tiny_training(Path(folder)))
        taken = []
        for step in (1, 2):
            buffers.reclaim()
            started = time.perf_counter()
            held = snapshot(engine, checkpoints.folder_of(step), buffers)
            taken.append(time.perf_counter() - started)
        started = time.perf_counter()
        checkpoints.save(2, {}, lambda _: held.write())
        return num_bytes / taken[0], num_bytes / taken[1], num_bytes / (time.perf_counter() - started)


def modelled_stall(copied: float) -> float:
    """Return the share of the 1.1 B prior's steps on 64 H100 that rank 0's copy takes at this machine's rate of copying.

    ZeRO stage 1: rank 0, which copies most, copies the bf16 weights, and its 64th of masters, moments and averages. They are gathered
    by the thread that writes. A copy from a GPU into pinned memory passes PCIe, which is faster than one core copies memory.
    """
    num_bytes = PRIOR_WEIGHTS * (2 + (12 + 4) / NUM_GPUS)
    return num_bytes / copied / (PRIOR_EVERY * STEP_S)


def main() -> None:
    """Time both ways in alternating rounds and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each kind, a minute each")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--mib", type=int, default=COPIED_MIB)
    arguments = parser.parse_args()
    figures = Figures("checkpoint", "torch", "deepspeed")
    plan = {
        "width": 896,
        "precision": computed(["bf16", "fp32"])[0],
        "steps": arguments.steps,
        "every": EVERY,
        "stage": 1,
    }
    behind, waited = alternated(
        arguments.rounds, functools.partial(stall, ours, plan), functools.partial(stall, waiting, plan)
    )
    figures.add_rounds("checkpoint_stall_demo", behind, "share", f"<={GOAL_STALL}")
    figures.add_rounds("checkpoint_stall_demo_if_waited_for", waited, "share")
    rates = [copied_and_committed(arguments.mib) for _ in range(COPIES)]
    first, copied, committed = zip(*rates, strict=True)
    figures.add_rounds("checkpoint_first_copy", [rate / 1e9 for rate in first], "GB/s")
    figures.add_rounds("checkpoint_copy", [rate / 1e9 for rate in copied], "GB/s")
    figures.add_rounds("checkpoint_commit", [rate / 1e9 for rate in committed], "GB/s")
    modelled = [modelled_stall(rate) for rate in copied]
    figures.add_rounds("checkpoint_stall_1.1b_64_h100_modelled", modelled, "share", f"<={GOAL_STALL}")
    figures.write()


if __name__ == "__main__":
    main()
