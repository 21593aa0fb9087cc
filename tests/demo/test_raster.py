import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.demo import raster
from corgi.demo.packaged_styles import OPENMOJI, packaged
from corgi.settings.errors import StorageError


def open_picture(body: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(body))
    picture.load()
    return picture


@pytest.fixture(scope="module")
def red_heart():
    pictures = packaged().pictures
    return next(one for one in pictures if (one.caption, one.style) == ("red heart", OPENMOJI))


def test_render_is_a_red_heart_on_white(red_heart):
    picture = raster.render(red_heart.svg, 64)
    pixels = np.asarray(picture).astype(int)
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    red, green, blue = pixels[28, 32]
    assert red > 150
    assert max(green, blue) < 80


def test_file_holds_what_its_name_says(few_pictures, picture_folder):
    formats = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
    sides = set()
    for one in few_pictures:
        path = picture_folder / raster.file_name(one.id)
        picture = open_picture(path.read_bytes())
        assert picture.format == formats[path.suffix[1:]]
        assert picture.size == (raster.side_px(one.id),) * 2
        sides.add(picture.size)
    assert len(sides) > 3
    assert {path.suffix for path in picture_folder.iterdir()} == {".jpg", ".png", ".webp"}


def test_formats_and_sides_are_evenly_mixed():
    ids = [picture.id for picture in packaged().pictures]
    for choose, options in ((raster.extension, 3), (raster.side_px, len(raster.SIDES_PX))):
        counts = np.unique([choose(one) for one in ids], return_counts=True)[1]
        assert len(counts) == options
        assert counts.min() > 0.8 * len(ids) / options


def test_second_call_renders_nothing_and_a_damaged_cache_is_mended(few_pictures, tmp_path):
    pictures = few_pictures[:3]
    names = [raster.file_name(one.id) for one in pictures]
    assert raster.rasterise(pictures, tmp_path) == 3
    first = {name: (tmp_path / name).read_bytes() for name in names}
    assert raster.rasterise(pictures, tmp_path) == 0
    (tmp_path / names[0]).unlink()
    (tmp_path / names[1]).write_bytes(b"")
    assert raster.rasterise(pictures, tmp_path) == 2
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_many_are_rendered_by_processes_as_one_by_one(few_pictures, picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(raster, "LEAST_FOR_PROCESSES", 2)
    own, write = os.getpid(), raster.write_whole
    monkeypatch.setattr(raster, "write_whole", lambda *_: pytest.fail(f"rendered by process {own}"))
    assert raster.rasterise(few_pictures, tmp_path / "many") == len(few_pictures)
    monkeypatch.setattr(raster, "write_whole", write)
    one_by_one = {path.name: path.read_bytes() for path in picture_folder.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "many").iterdir()} == one_by_one


def test_stopped_write_leaves_no_file_under_the_final_name(few_pictures, tmp_path, monkeypatch):
    def full_disk(self: Path, body: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(body[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        raster.rasterise(few_pictures[:1], tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / raster.file_name(few_pictures[0].id)).exists()
