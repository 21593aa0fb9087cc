"""Runs trainings in this process, as their only worker, without Ray Train."""

import os
from collections.abc import Sequence

import torch.distributed as dist

from corgi.training.training import Training


def train_alone(trainings: Sequence[Training]) -> None:
    """Run trainings to their final weights, one after the other, with one worker. Finished trainings are skipped.

    Raises:
        CorgiError: as `train_loop` does.

    """
    from corgi.training.loop import train_loop

    for training in trainings:
        join(training.settings.use_gpu)
        train_loop(training)


def join(use_gpu: bool) -> None:
    """Create a process group of size one, once per process; it is never destroyed, since DeepSpeed keeps the first group it sees."""
    if dist.is_initialized():
        return
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed requires it
    dist.init_process_group("nccl" if use_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)
