"""torch.compile beside the loop's own patches of a model's forward: the same training. The compiler takes a minute on two cores."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from corgi.training.loop import train_loop
from tests.support.tiny_training import tiny_training
from tests.support.workers import run_workers


def compiled_and_eager(root: Path) -> None:
    for precision, compiled in itertools.product(("fp32", "bf16"), (False, True)):
        name = f"{precision}-{compiled}"
        arguments: dict[str, Any] = {"depth": 1, "dropout": 0.0}
        train_loop(
            tiny_training(
                root / name, name, arguments, num_steps=3, zero_stage=0, precision=precision, compile=compiled
            )
        )


@pytest.mark.timeout(600)
def test_a_compiled_training_equals_an_eager_one(tmp_path: Path) -> None:
    """Beside the forward that computes in bf16 too; a CPU's own kernels round otherwise than those that are compiled."""
    run_workers(compiled_and_eager, 1, tmp_path)
    for precision, atol in (("fp32", 1e-5), ("bf16", 5e-3)):
        eager, compiled = (
            load_file(tmp_path / f"{precision}-{made}" / "final/weights.safetensors")
            for made in (False, True)
        )
        torch.testing.assert_close(compiled, eager, rtol=0, atol=atol)
