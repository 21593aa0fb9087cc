from pathlib import Path

import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import Picture, subset
from corgi.demo.raster import rasterise


@pytest.fixture(scope="session")
def few_pictures() -> tuple[Picture, ...]:
    return subset(packaged().pictures, 30)


@pytest.fixture(scope="session")
def picture_folder(few_pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("emoji") / "pictures"
    assert rasterise(few_pictures, folder) == len(few_pictures)
    return folder
