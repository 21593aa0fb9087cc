"""A decoder that starts from a Stable-Diffusion-like U-Net, killed by SIGKILL and started again: bit by bit the unbroken one."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor

from corgi.feeding.noise import Noise
from corgi.settings.decoder import DecoderSettings, FineTuneSettings
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.training.decoder import DecoderObjective
from corgi.training.loop import train_loop
from corgi.training.training import Training
from tests.support.objectives import DECODER, decoder_arguments, pixel_run
from tests.support.stable_unet import stable_unet_folder
from tests.support.waiting import wait_until
from tests.support.workers import run_workers

CASES = [("projection", 2, "bf16"), ("lora", 1, "bf16"), ("lora", 0, "fp32"), ("all", 0, "fp32")]
STEPS, KILLED_AT, BATCH = 6, 5, 4


class KilledObjective(DecoderObjective):
    """Ends the last rank by SIGKILL once, at a step, where `marker` names a file that is not there yet."""

    def __init__(self, marker: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.marker = Path(marker) if marker else None

    def loss(self, model: Any, batch: dict[str, Tensor], noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        due = int(noise.positions.min()) // BATCH == KILLED_AT and torch.is_grad_enabled()
        is_last = dist.get_rank() == dist.get_world_size() - 1
        if due and is_last and self.marker is not None and not self.marker.exists():
            self.marker.touch()
            folder = self.marker.parent
            wait_until(lambda: any(folder.glob("checkpoints/*/COMMITTED.json")), "a checkpoint is committed")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch, noise)


def training_of(folder: Path, case: tuple[str, int, str], arguments: dict[str, Any], marker: str) -> Training:
    _, stage, precision = case
    settings = TrainingSettings.model_validate(
        {
            "num_steps": STEPS, "global_batch": BATCH, "lr": 0.01, "ema_decay": 0.5, "precision": precision,
            "zero_stage": stage, "checkpoint_every_steps": 2,
        }
    )  # fmt: skip
    told = {**arguments, "marker": marker}
    quiet = TrackingSettings(mode="disabled")
    return Training(folder.name, str(folder), KilledObjective, told, settings, quiet, "tests", seed=1)


def settings_of(way: str, folder: Path) -> DecoderSettings:
    asked = FineTuneSettings.model_validate({"weights": way, "rank": 2})
    return DECODER.model_copy(update={"network": "unet", "init_from": str(folder), "finetune": asked})


def final(training: Training) -> dict[str, Tensor]:
    return load_file(training.path / "final" / "weights.safetensors")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_sigkill_and_resume_are_bit_equal(tmp_path: Path, case: tuple[str, int, str]) -> None:
    folder = stable_unet_folder(tmp_path / "unet")
    given = decoder_arguments(pixel_run(tmp_path / "run"), settings_of(case[0], folder))
    arguments = {**given, "init": {"folder": str(folder)}}
    whole = training_of(tmp_path / "whole", case, arguments, "")
    killed = training_of(tmp_path / "killed", case, arguments, str(tmp_path / "killed" / "mark"))
    run_workers(train_loop, 2, whole)
    with pytest.raises((mp.ProcessExitedException, mp.ProcessRaisedException)):
        run_workers(train_loop, 2, killed)
    assert (killed.path / "mark").exists()
    assert not (killed.path / "final").exists()
    run_workers(train_loop, 2, killed)
    found, expected = final(killed), final(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
