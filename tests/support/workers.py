"""Runs a function in several gloo processes without Ray."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp


def run_workers(
    function: Callable[..., Any], num_workers: int, *arguments: Any, timeout_s: float = 300.0
) -> None:
    """Run `function(*arguments)` in `num_workers` fresh processes that form one process group; raises what one raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (num_workers, port, function, arguments, timeout_s), nprocs=num_workers)


def _worker(
    rank: int,
    num_workers: int,
    port: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    timeout_s: float,
) -> None:
    places = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": num_workers,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in places.items()})
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    try:
        function(*arguments)
    finally:
        dist.destroy_process_group()
