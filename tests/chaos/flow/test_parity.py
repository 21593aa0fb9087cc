"""Our vectors beside open_clip's own, with a trained tower: 500 OpenMoji pictures at source size, each resize path."""

import numpy as np
import pytest
import torch

from benchmarks.embed import RESIZE_PATHS, opened_picture, sources, stored_cosines, trained, whole_cosines
from corgi.clip.embed import embed_pictures
from corgi.clip.towers import load_tower
from corgi.settings.clip import EmbedSettings
from tests.support.drawn import encoded
from tests.support.smoke_run import Smoke

NUM_PICTURES = 500


@pytest.mark.flow
@pytest.mark.timeout(900)
def test_our_vectors_are_open_clips(smoke: Smoke) -> None:
    _, ref = trained(str(smoke.runs / "smoke"))
    paths = sources(NUM_PICTURES, smoke.folder / "site")
    assert len(paths) == NUM_PICTURES
    pictures = [opened_picture(path) for path in paths]
    for mode, interpolation in RESIZE_PATHS:
        cosine = whole_cosines(ref, mode, interpolation, pictures)
        assert cosine.min() >= 0.999, (mode, interpolation)
    tower, some = load_tower(ref), pictures[:100]
    whole = torch.cat([tower.images([picture])[0] for picture in some]).numpy()
    cosines = whole @ whole.T
    assert cosines.std() > 0.05  # a collapsed tower would hide every difference
    stored = embed_pictures([tower], [encoded(picture) for picture in some], EmbedSettings(batch_size=7))
    np.testing.assert_array_less(0.999, (stored.unit[tower.name] * whole).sum(axis=1))
    loss = {name: float(1 - found.mean()) for name, found in stored_cosines(tower, paths).items()}
    assert all(0 < value < 0.1 for value in loss.values()), loss
