"""FID and KID are those of torch-fidelity's command on the same two folders, and a fault planted in our code is seen.

The weights are random values of the true shapes, so no download is needed. The images are larger than the network's 299 px:
only then does an antialias filter change anything.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor
from torch.nn.functional import interpolate

from corgi.evaluation import inception as inception_module
from corgi.evaluation.folder_scores import inception_scores
from corgi.evaluation.folders import read_folder
from corgi.evaluation.inception import Inception, bytes_of, load_inception
from tests.support.inception_weights import fidelity, write_folders, write_weights

pytestmark = pytest.mark.timeout(1700)

PICTURES, FEW, SIDE = 256, 24, 360
FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels in another order": lambda pixels: pixels.flip(1),
    "another range": lambda pixels: pixels // 2 + 64,
    "antialiased": lambda pixels: (
        interpolate(pixels.float(), (299, 299), mode="bilinear", antialias=True, align_corners=False)
        .round()
        .clamp(0, 255)
        .byte()
    ),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return load_inception(weights)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folders(tmp_path_factory.mktemp("few"), FEW, SIDE)


@pytest.fixture(scope="module")
def said_of_few(weights: Path, few: list[Path]) -> tuple[float, float]:
    return said(weights, few, FEW)


def said(weights: Path, folders: list[Path], pictures: int) -> tuple[float, float]:
    """Return FID and KID as torch-fidelity's command prints them."""
    told = fidelity(weights, folders, pictures)
    return told["frechet_inception_distance"], told["kernel_inception_distance_mean"]


def scored(inception: Inception, folders: list[Path]) -> tuple[float, float]:
    """Return FID and KID as score.py prints them."""
    found = inception_scores(*(inception.features(read_folder(str(path)).pictures) for path in folders))
    return found["FID"], found["KID"]  # pyright: ignore[reportReturnType]


def test_law_fid_and_kid_of_256_pictures_are_those_of_torch_fidelity(
    weights: Path, inception: Inception, tmp_path: Path
) -> None:
    folders = write_folders(tmp_path, PICTURES, SIDE)
    expected = said(weights, folders, PICTURES)
    assert expected[0] > 0
    assert expected[1] > 1e-4
    assert scored(inception, folders) == pytest.approx(expected, rel=1e-3)


def test_law_few_pictures_agree_too(
    inception: Inception, few: list[Path], said_of_few: tuple[float, float]
) -> None:
    assert scored(inception, few) == pytest.approx(said_of_few, rel=1e-3)


@pytest.mark.parametrize("fault", FAULTS)
def test_law_a_planted_fault_is_seen(
    fault: str,
    inception: Inception,
    few: list[Path],
    said_of_few: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inception_module, "bytes_of", lambda pictures: FAULTS[fault](bytes_of(pictures)))
    found = scored(inception, few)
    assert all(abs(one / other - 1) > 1e-2 for one, other in zip(found, said_of_few, strict=True))
