"""FID and KID agree with torch-fidelity's command on the same folders; another file of weights is refused, never replaced.

The weights are random values of the true shapes, so no download is needed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corgi.evaluation.folder_scores import inception_scores
from corgi.evaluation.folders import read_folder
from corgi.evaluation.inception import Inception, bytes_of, load_inception
from corgi.settings.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PICTURES, SIDE = 256, 32


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of random values, scaled so that features differ from picture to picture."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    shapes: dict[str, Any] = _untrained(FeatureExtractorInceptionV3).state_dict()
    state = {}
    for name, value in shapes.items():
        if value.ndim > 1:
            state[name] = torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5
        else:
            state[name] = value
    torch.save(state, path)
    return path


def _untrained(kind: Any) -> torch.nn.Module:
    """Return torch-fidelity's network as its constructor makes it, before it reads a file."""
    load = torch.nn.Module.load_state_dict
    torch_load = torch.load
    made: list[torch.nn.Module] = []
    try:
        torch.nn.Module.load_state_dict = lambda self, *_, **__: made.append(self)  # type: ignore[method-assign]
        torch.load = lambda *_, **__: {}  # type: ignore[assignment]
        return kind("inception-v3-compat", ["2048"], feature_extractor_weights_path=__file__)
    finally:
        torch.nn.Module.load_state_dict = load
        torch.load = torch_load


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    draws = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("pictures")
    for name, shift in (("painted", 40), ("real", 0)):
        (root / name).mkdir()
        for number in range(PICTURES):
            small = draws.integers(0, 216, (8, 8, 3)) + np.array([shift, 0, 0])
            picture = Image.fromarray(small.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            picture.save(root / name / f"{number:03d}.png")
    return [root / "painted", root / "real"]


@pytest.fixture(scope="module")
def told(weights: Path, folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """What torch-fidelity's own command says."""
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
        *("--fid", "--kid", "--kid-subset-size", str(PICTURES), "--kid-subsets", "3", "--json", "--no-cache"),
        *("--feature-extractor-weights-path", str(weights), "--silent", "--cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return load_inception(weights)


def features(
    inception: Inception, folders: list[Path], spoil: Any = lambda picture: picture
) -> list[np.ndarray]:
    return [inception.features([spoil(one) for one in read_folder(str(path)).pictures]) for path in folders]


def test_fid_and_kid_are_those_of_torch_fidelity(
    inception: Inception, folders: list[Path], told: dict[str, float]
) -> None:
    found = inception_scores(*features(inception, folders))
    fid, kid = told["frechet_inception_distance"], told["kernel_inception_distance_mean"]
    assert found["FID"] == pytest.approx(fid, rel=1e-3)
    assert found["KID"] == pytest.approx(kid, rel=1e-3)
    assert fid > 0
