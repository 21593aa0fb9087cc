"""FID and KID are those of torch-fidelity's command, and a planted fault is seen.

The weights are random values of the true shapes, so no download is needed. Its eigenvalues of 2,048 x 2,048 take minutes.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from corgi.evaluation.folder_scores import inception_scores
from corgi.evaluation.folders import read_folder
from corgi.evaluation.inception import Inception, load_inception
from tests.support.inception_weights import fidelity, write_folders, write_weights

pytestmark = pytest.mark.timeout(1700)

PICTURES, SIDE = 4, 360
FAULTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "channels in another order": lambda one: Image.merge("RGB", one.split()[::-1]),
    "another range": lambda one: one.point([value // 2 + 64 for value in range(256)] * 3),
    "antialiased": lambda one: one.resize((299, 299), Image.Resampling.BILINEAR),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folders(tmp_path_factory.mktemp("pictures"), PICTURES, SIDE)


@pytest.fixture(scope="module")
def said(weights: Path, folders: list[Path]) -> tuple[float, float]:
    told = fidelity(weights, folders, PICTURES)
    return told["frechet_inception_distance"], told["kernel_inception_distance_mean"]


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return load_inception(weights)


def scored(
    inception: Inception, folders: list[Path], spoil: Callable[[Image.Image], Image.Image] = lambda one: one
) -> tuple[float, float]:
    painted, real = (list(read_folder(str(path)).pictures) for path in folders)
    found = inception_scores(inception.features([spoil(one) for one in painted]), inception.features(real))
    return found["FID"], found["KID"]  # pyright: ignore[reportReturnType]


def test_law_fid_and_kid_are_those_of_torch_fidelity(
    inception: Inception, folders: list[Path], said: tuple[float, float]
) -> None:
    assert scored(inception, folders) == pytest.approx(said, rel=1e-3)
    assert said[0] > 0
    assert abs(said[1]) > 1e-4  # of so few pictures the unbiased distance may be negative


@pytest.mark.parametrize("fault", FAULTS)
def test_law_a_planted_fault_is_seen(
    fault: str, inception: Inception, folders: list[Path], said: tuple[float, float]
) -> None:
    found = scored(inception, folders, FAULTS[fault])
    assert all(abs(one / other - 1) > 1e-2 for one, other in zip(found, said, strict=True))


def test_fid_and_kid_of_256_pictures_are_those_of_torch_fidelity(
    weights: Path, inception: Inception, tmp_path: Path
) -> None:
    folders = write_folders(tmp_path, 256, 64)
    said = fidelity(weights, folders, 256)
    found = inception_scores(*(inception.features(read_folder(str(path)).pictures) for path in folders))
    assert found["FID"] == pytest.approx(said["frechet_inception_distance"], rel=1e-3)
    assert found["KID"] == pytest.approx(said["kernel_inception_distance_mean"], rel=1e-3)
