"""Our vectors beside open_clip's own, with a trained tower: 500 OpenMoji pictures at source size, each resize path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.embed import RESIZE_PATHS, opened_picture, sources, stored_cosines, trained, whole_cosines
from corgi.clip.embed import embed_pictures
from corgi.clip.towers import load_tower
from corgi.settings.clip import EmbedSettings
from tests.support.drawn import encoded
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
NUM_PICTURES = 500


@pytest.mark.flow
@pytest.mark.timeout(1200)
def test_our_vectors_are_open_clips(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        *(sys.executable, str(HOME / "pipelines" / "demo.py"), "--pictures", str(NUM_PICTURES)),
        *("--port", str(free_port()), "--work", str(site), "--until", "tower"),
        *(f"root={tmp_path / 'runs'}", "tower.training.num_steps=60"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=HOME, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    _, ref = trained(str(tmp_path / "runs" / "openmoji"))
    paths = sources(NUM_PICTURES, site)
    assert len(paths) == NUM_PICTURES
    for mode, interpolation in RESIZE_PATHS:
        cosine = whole_cosines(ref, mode, interpolation, paths)
        assert cosine.min() >= 0.999, (mode, interpolation)
    tower = load_tower(ref)
    pictures = [opened_picture(path) for path in paths[:100]]
    whole = torch.cat([tower.images([picture])[0] for picture in pictures]).numpy()
    cosines = whole @ whole.T
    assert cosines.std() > 0.05  # a collapsed tower would hide every difference
    stored = embed_pictures([tower], [encoded(picture) for picture in pictures], EmbedSettings(batch_size=7))
    np.testing.assert_array_less(0.999, (stored.unit[tower.name] * whole).sum(axis=1))
    loss = {name: float(1 - found.mean()) for name, found in stored_cosines(tower, paths).items()}
    assert all(0 < value < 0.1 for value in loss.values()), loss
