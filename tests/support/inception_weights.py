"""A weights file of torch-fidelity's Inception with random values of the true shapes, and what its command says of two folders."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image


def write_weights(path: Path) -> Path:
    """Write random weights under which features differ from picture to picture."""
    torch.manual_seed(0)
    state = {
        name: torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else value
        for name, value in _untrained().state_dict().items()
    }
    torch.save(state, path)
    return path


def _untrained() -> torch.nn.Module:
    """Return the network as its constructor builds it; no file is read."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    kind: Any = FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "load", lambda *_, **__: {})
        patched.setattr(kind, "load_state_dict", lambda *_, **__: None)
        return kind("untrained", ["2048"], feature_extractor_weights_path="none")


def write_folders(root: Path, pictures: int, side: int) -> list[Path]:
    """Write two folders of noise of several coarseness; the first is redder than the second."""
    draws = np.random.default_rng(0)
    for name, shift in (("painted", 40), ("real", 0)):
        (root / name).mkdir(parents=True)
        for number in range(pictures):
            cells = (4, 16, side)[number % 3]
            small = draws.integers(0, 216, (cells, cells, 3)) + np.array([shift, 0, 0])
            drawn = Image.fromarray(small.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
            drawn.save(root / name / f"{number:03d}.png")
    return [root / "painted", root / "real"]


def fidelity(weights: Path, folders: list[Path], pictures: int) -> dict[str, float]:
    """Return what torch-fidelity's own command says: FID, and KID over subsets of all pictures."""
    command = [
        *(
            sys.executable,
            "-m",
            "torch_fidelity.fidelity",
            "--input1",
            str(folders[0]),
            "--input2",
            str(folders[1]),
        ),
        *("--fid", "--kid", "--kid-subset-size", str(pictures), "--kid-subsets", "3", "--json", "--no-cache"),
        *("--feature-extractor-weights-path", str(weights), "--silent", "--cpu", "--batch-size", "8"),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }  # tests have one thread; this takes minutes
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, float] = json.loads(done.stdout[done.stdout.index("{") :])
    return said
