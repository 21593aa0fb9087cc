"""Stop a process that saves checkpoints at its system calls, one after another, and see what the next one resumes from.

`python -m tests.support.checkpoint_sweep FOLDER MAX_POINTS` prints one JSON object. Each point is a forked process that strace
is attached to, so only the commit's own calls count.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from corgi.training.checkpoint import Checkpoints, final_weights, finish, is_finished
from tests.support import kill_sweep
from tests.support.kill_sweep import CALLS, counts, names_of, points
from tests.support.tiny_training import tiny_training

LAST = 4


def advance(root: Path) -> None:
    """Resume from the newest whole checkpoint, save one after each of the remaining steps, and finish."""
    training = tiny_training(root)
    if is_finished(training):
        return
    checkpoints = Checkpoints(training)
    found = checkpoints.newest()
    value = load_file(found.folder / "ema.safetensors")["w"] if found else torch.zeros(8)
    for step in range(found.step if found else 0, LAST):
        value = value + (step + 1) ** 2
        with (root / "begun").open("a") as handle:
            handle.write(f"{step + 1}\n")
        checkpoints.save(step + 1, {"step": step + 1}, lambda folder, value=value: put(folder, value))
    finish(training, {"w": value}, {})


def put(folder: Path, value: torch.Tensor) -> None:
    """Write what a rank writes: one DeepSpeed-like shard by torch.save, and the averages."""
    (folder / "engine").mkdir(exist_ok=True)
    torch.save({"state": value}, folder / "engine" / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    save_file({"w": value}, folder / "ema.safetensors")


def run(root: Path, inject: str | None = None, log: Path | None = None) -> int:
    """Advance in a child under strace; return its exit status, negative for a signal."""
    root.mkdir(parents=True, exist_ok=True)
    return kill_sweep.run(root, inject, log, _child)


def _child(root: Path) -> None:
    try:
        advance(root)
    except BaseException:
        os._exit(6)
    os._exit(0)


def lost(root: Path) -> int:
    """Return how many steps were begun beyond the newest whole checkpoint."""
    if is_finished(tiny_training(root)):
        return 0
    path = root / "begun"
    begun = [0, *map(int, path.read_text().split() if path.exists() else [])]
    found = Checkpoints(tiny_training(root)).newest()
    return max(begun) - (found.step if found else 0)


def sweep(folder: Path, max_points: int) -> dict[str, object]:
    """Return what became of every point: how many were hit, the most steps lost, and which ended otherwise."""
    log = folder / "unbroken.log"
    (folder / "warm").mkdir()
    advance(folder / "warm")
    assert run(folder / "unbroken", log=log) == 0
    wanted = final_weights(tiny_training(folder / "unbroken")).read_bytes()
    hit, wrong, most = 0, [], 0
    made = Counter({call: number for call, number in counts(log).items() if call in CALLS})
    chosen = points(made, max_points)
    for call, number in chosen:
        root = folder / f"{call}-{number}"
        status = run(root, f"{names_of((call,))}:signal=SIGKILL:when={number}")
        hit += status == -9
        steps = lost(root)
        most = max(most, steps)
        advance(root)
        # The last of many calls may not come a second time: then the run just ends.
        if status not in (-9, 0) or steps > 1 or final_weights(tiny_training(root)).read_bytes() != wanted:
            wrong.append([call, number, status, steps])
    return {"points": len(chosen), "hit": hit, "most_lost": most, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(sweep(Path(sys.argv[1]), int(sys.argv[2]))))
