"""The batch size of the embed stage if the recipe sets none: measured once per kind of device and kept in the store."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from corgi.clip.towers import Tower, load_tower
from corgi.flow.code import code_digest
from corgi.settings.clip import TowerRef
from corgi.settings.section import digest
from corgi.tables.manifest import RowCounts
from corgi.tables.store import ShardTask, Store

SIZES = (16, 32, 64, 128, 256, 512, 1024)
GOOD_ENOUGH = 1.03
"""The smallest size whose time per picture is within this factor of the best is chosen."""
_MAX_BATCH_S = 2.0
_STAGE = "embed_batch_size"


def measured_batch_size(root: str, towers: Sequence[Mapping[str, object]], precision: str) -> int:
    """Return the batch size for this process's device; it is measured unless the store has one for this kind of device."""
    store = Store(root)
    kind = {"device": device_kind(), "towers": list(towers), "precision": precision}
    task = ShardTask(root, _STAGE, "size", digest(kind), 1, code_digest(), {"measured": kind})
    known = store.shard(task.stage, task.key)
    if known is None:
        loaded = [load_tower(TowerRef.model_validate(values), precision) for values in towers]
        size = best_size(lambda number: _seconds(loaded, number))
        with store.attempt(task) as attempt:
            known = attempt.commit(
                RowCounts(rows_in=0, kept=0), {"batch_size": size, "device": device_kind()}
            )
    return int(known.facts["batch_size"])


def best_size(seconds: Callable[[int], float | None], sizes: Sequence[int] = SIZES) -> int:
    """Return the smallest size that is about as fast per picture as the fastest; `seconds` returns None when memory runs out."""
    rates: dict[int, float] = {}
    for size in sizes:
        taken = seconds(size)
        if taken is None:
            break
        rates[size] = taken / size
        if taken > _MAX_BATCH_S:
            break
    best = min(rates.values(), default=0.0)
    return next((size for size, rate in rates.items() if rate <= GOOD_ENOUGH * best), sizes[0])


def device_kind() -> str:
    """Return the GPU's name, or the kind and number of CPUs and the number of torch's threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"


def _seconds(towers: Sequence[Tower], size: int) -> float | None:
    """Return the time of one batch through every tower, the best of two after a first run that is not counted; None if memory runs out."""
    times = []
    try:
        for _ in range(3):
            start = time.perf_counter()
            for tower in towers:
                tower.pixels(torch.zeros(size, 3, tower.image_size, tower.image_size, dtype=torch.uint8))
            times.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return None
    return min(times[1:])
