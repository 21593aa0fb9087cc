"""A verified checkpoint in DeepSpeed's universal form, for another number of workers or for stage 1 after stage 2."""

import argparse
import contextlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corgi.settings.errors import ClusterError
from corgi.settings.training import TrainingSettings
from corgi.training.checkpoint import Checkpoint
from corgi.training.ranks import barrier, from_first, rank, world_size

TAG = "engine"


def needs_conversion(checkpoint: Checkpoint, settings: TrainingSettings) -> bool:
    """Return whether a checkpoint must be converted before this run can load it.

    Raises:
        ClusterError: another ZeRO stage wrote it; DeepSpeed turns only stage 2 into stage 1.

    """
    wrote, stage = checkpoint.zero_stage, settings.zero_stage
    if wrote != stage and (wrote, stage) != (2, 1):
        raise ClusterError(
            f"{checkpoint.folder} was written at ZeRO stage {wrote} and cannot be resumed at stage {stage}; nothing is lost; "
            f"set zero_stage={wrote}, or start anew from the averaged weights in its ema.safetensors"
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
    """Run DeepSpeed's own conversion in this process, without its lines on screen."""
    from deepspeed.checkpoint.ds_to_universal import main

    target.mkdir(parents=True)
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
