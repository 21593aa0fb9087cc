"""Resize modes against img2dataset's own Resizer, and what shrinking must keep of a picture."""

import io
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from corgi.imaging.decode import StoredImage, decode, decode_stored, phash_of, resized, target_sizes
from corgi.settings.data import DownloadSettings
from tests.support.pictures import encoded, scene

MODES = ("border", "keep_ratio", "keep_ratio_largest", "center_crop", "no")


@pytest.fixture(scope="module")
def resizer_of():
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset.resizer import Resizer

    return Resizer


@pytest.mark.parametrize("only_if_bigger", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_sizes_are_those_of_img2datasets_resizer(resizer_of, mode: str, only_if_bigger: bool) -> None:
    theirs = resizer_of(64, mode, only_if_bigger)
    options = DownloadSettings.model_validate(
        {"image_size": 64, "resize_mode": mode, "resize_only_if_bigger": only_if_bigger}
    )
    rng = np.random.default_rng(5)
    sizes = [(64, 64), (63, 64), (64, 65), (10, 20), (128, 129), (31, 200), (200, 100), (999, 50)]
    sizes += [(int(width), int(height)) for width, height in rng.integers(20, 300, (12, 2))]
    for size in sizes:
        body = encoded(Image.new("RGB", size, "red"), "PNG")
        _, width, height, original_width, original_height, error = theirs(io.BytesIO(body))
        assert error is None
        ours = decode(body, options)
        assert isinstance(ours, StoredImage)
        assert (ours.width, ours.height) == (width, height), (mode, size)
        assert (ours.original_width, ours.original_height) == (original_width, original_height) == size
        assert decode_stored(ours.image).size == (width, height)


@settings(max_examples=500)
@given(
    st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    st.sampled_from(MODES),
    st.integers(16, 4096),
    st.booleans(),
)
def test_laws_of_the_sizes(size: tuple[int, int], mode: str, side: int, only_if_bigger: bool) -> None:
    inner, final = target_sizes(size, mode, side, only_if_bigger)
    assert min(*inner, *final) >= 1
    turned = target_sizes((size[1], size[0]), mode, side, only_if_bigger)
    assert turned == ((inner[1], inner[0]), (final[1], final[0]))
    deciding = min if mode in ("keep_ratio", "center_crop") else max
    if mode == "no" or (only_if_bigger and deciding(size) <= side):
        assert inner == final == size
        return
    assert deciding(inner) == side
    scale = side / deciding(size)
    for before, after in zip(size, inner, strict=True):
        assert after == 1 or abs(after - before * scale) <= 0.5 + 1e-6
    assert final == ((side, side) if mode in ("center_crop", "border") else inner)


def photo(seed: int, width: int, height: int) -> np.ndarray:
    """Return detail at every scale down to single pixels."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    for cells in (4, 16, 64, 256):
        grid = rng.normal(0, 40 * (4 / cells) ** 0.3, (cells, cells, 3))
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(total + rng.normal(0, 8, (height, width, 1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("factor", [1.05, 1.2, 1.35, 1.5, 1.7, 1.875, 2.0])
@pytest.mark.parametrize("number", [0, 1])
def test_shrinking_is_no_further_from_lanczos_than_pillows_bilinear(number: int, factor: float) -> None:
    picture = np.ascontiguousarray(load_sample_images().images[number])
    size = (round(640 / factor), round(427 / factor))
    exact = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)).astype(float)
    theirs = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)).astype(float)
    ours = resized(picture, size).astype(float)
    assert ours.shape == exact.shape
    assert np.square(ours - exact).mean() <= np.square(theirs - exact).mean()


@pytest.mark.parametrize(
    "size", [(341, 256), (320, 240), (500, 400), (100, 31), (7, 3), (640, 1), (1, 480), (900, 700)]
)
def test_a_plain_surface_stays_plain(size: tuple[int, int]) -> None:
    surface = np.full((480, 640, 3), (10, 120, 250), np.uint8)
    found = resized(surface, size)
    assert found.shape == (size[1], size[0], 3)
    assert np.abs(found.astype(int) - surface[0, 0]).max() <= 1


@pytest.mark.parametrize("side", [700, 1030, 1500, 2600])
def test_a_scaled_jpeg_is_the_whole_one_made_small(side: int) -> None:
    picture = cv2.GaussianBlur(photo(4, side, side * 3 // 4), (0, 0), side / 256)
    found = decode(
        encoded(Image.fromarray(picture), "JPEG", quality=95), DownloadSettings(encode_format="png")
    )
    assert isinstance(found, StoredImage)
    expected = Image.fromarray(picture).resize((found.width, found.height), Image.Resampling.LANCZOS)
    error = np.asarray(decode_stored(found.image)).astype(float) - np.asarray(expected)
    assert np.sqrt(np.square(error).mean()) < 4


def test_the_hash_is_within_a_few_bits_of_imagehashs() -> None:
    import imagehash

    distances = []
    for seed in range(30):
        picture = scene(seed, 341, 256) if seed % 2 else Image.fromarray(photo(seed, 341, 256))
        distances.append((int(phash_of(picture), 16) ^ int(str(imagehash.phash(picture)), 16)).bit_count())
    assert max(distances) <= 8
    assert float(np.mean(distances)) <= 3
