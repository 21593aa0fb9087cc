"""Converts a verified checkpoint to DeepSpeed's universal format, for another number of workers or for stage 1 after stage 2."""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corgi.settings.errors import ClusterError
from corgi.settings.training import TrainingSettings
from corgi.training.checkpoint import Checkpoint
from corgi.training.ranks import barrier, from_first, rank, world_size
from corgi.training.snapshot import TAG

BYTES_PER_WORKER = 256 * 2**20
"""Bytes that justify another process of the conversion: a process takes seconds to start, in which one converts about this much
(7.5 CPU-seconds per GB)."""


def needs_conversion(checkpoint: Checkpoint, settings: TrainingSettings) -> bool:
    """Return whether a checkpoint must be converted before this run can load it.

    Raises:
        ClusterError: it was written at another ZeRO stage; DeepSpeed converts only from stage 2 to stage 1.

    """
    wrote, stage = checkpoint.zero_stage, settings.zero_stage
    if wrote != stage and (wrote, stage) != (2, 1):
        raise ClusterError(
            f"{checkpoint.folder} was written at ZeRO stage {wrote} and cannot be resumed at stage {stage}; nothing is lost; "
            f"set zero_stage={wrote}, or start again from the averaged weights in its ema.safetensors"
        )
    return wrote != stage or (stage > 0 and checkpoint.state["world_size"] != world_size())


@contextmanager
def converted(checkpoint: Checkpoint, settings: TrainingSettings) -> Iterator[Path]:
    """Yield the folder to load: the checkpoint's own, or a universal copy that rank 0 makes and removes afterwards; a collective."""
    if not needs_conversion(checkpoint, settings):
        yield checkpoint.folder
        return
    scratch = checkpoint.folder.parent.parent / "universal"
    target = Path(from_first(str(scratch / checkpoint.folder.name)))
    if rank() == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        _convert(checkpoint.folder / TAG, target / TAG, checkpoint.zero_stage)
    barrier()
    try:
        yield target
    finally:
        barrier()
        if rank() == 0:
            shutil.rmtree(scratch, ignore_errors=True)


def _convert(source: Path, target: Path, stage: int) -> None:
    """Run DeepSpeed's own conversion, with as many processes as the checkpoint's size justifies, up to this node's cores.

    A single one runs in this process. Several are forked from a new process: a fork of this one would inherit the locks of its
    threads.

    Raises:
        RuntimeError: DeepSpeed could not convert the checkpoint, although its hashes are correct.

    """
    target.mkdir(parents=True)
    num_workers = min(len(os.sched_getaffinity(0)), _num_bytes(source) // BYTES_PER_WORKER)
    if num_workers > 1:
        _convert_beside(source, target, stage, num_workers)
        return
    from deepspeed.checkpoint.ds_to_universal import main

    arguments = argparse.Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=stage in (1, 2),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(arguments)


def _convert_beside(source: Path, target: Path, stage: int, num_workers: int) -> None:
    """Run the conversion in a new Python process with `num_workers` children, one thread per process."""
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(source), "--output_folder", str(target)]
    command += ["--num_extract_workers", str(num_workers), "--num_merge_workers", str(num_workers)]
    command += ["--inject_missing_state"] if stage in (1, 2) else []
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"DeepSpeed did not convert {source}: {done.stderr[-2000:]}")


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
