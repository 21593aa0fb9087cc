from pathlib import Path

import pytest

from corgi.demo.openmoji import Picture, catalogue, subset
from corgi.demo.raster import rasterise


@pytest.fixture(scope="session")
def few_pictures() -> tuple[Picture, ...]:
    return subset(catalogue(), 30)


@pytest.fixture(scope="session")
def picture_folder(few_pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("openmoji") / "pictures"
    assert rasterise(few_pictures, folder) == len(few_pictures)
    return folder
