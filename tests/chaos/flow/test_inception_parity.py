"""FID and KID of two folders of 256 pictures: those of torch-fidelity's command to 1e-3."""

from pathlib import Path

import pytest

from corgi.evaluation.folder_scores import inception_scores
from corgi.evaluation.folders import read_folder
from corgi.evaluation.inception import load_inception
from tests.support.inception_weights import fidelity, write_folders, write_weights

PICTURES = 256


@pytest.mark.timeout(1700)
def test_fid_and_kid_of_256_pictures_are_those_of_torch_fidelity(tmp_path: Path) -> None:
    weights, folders = write_weights(tmp_path / "weights.pth"), write_folders(tmp_path, PICTURES, 64)
    said = fidelity(weights, folders, PICTURES)
    inception = load_inception(weights)
    found = inception_scores(*(inception.features(read_folder(str(path)).pictures) for path in folders))
    assert found["FID"] == pytest.approx(said["frechet_inception_distance"], rel=1e-3)
    assert found["KID"] == pytest.approx(said["kernel_inception_distance_mean"], rel=1e-3)
