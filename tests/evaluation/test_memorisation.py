"""Planted copies are found and planted non-copies are not, by thresholds that held-out pictures set."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from torch import Tensor

from corgi.evaluation.copying import cosine, pixel_closeness
from corgi.evaluation.memorisation import (
    Copies,
    Space,
    calibrated,
    find_copies,
    hash_closeness,
    hash_rows,
    nearest_other,
    share_interval,
)
from corgi.evaluation.training_pictures import centred, pixels_of
from corgi.feeding.pictures import square

SIDE = 32


def to_pil_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())


def drawing(seed: int) -> Image.Image:
    """A picture of its own: five shapes of drawn places, sizes and colours."""
    draws = np.random.default_rng(seed)
    made = Image.new("RGB", (SIDE, SIDE), tuple(draws.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(made)
    for _ in range(5):
        left, top = draws.integers(0, SIDE - 8, 2).tolist()
        width, height = draws.integers(5, 18, 2).tolist()
        shape = pen.ellipse if draws.random() < 0.5 else pen.rectangle
        shape((left, top, left + width, top + height), fill=tuple(draws.integers(0, 256, 3).tolist()))
    return made


def jpeg(picture: Image.Image) -> Image.Image:
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=70)
    return Image.open(body).convert("RGB")


COPIES = {
    "itself": lambda picture: picture,
    "as JPEG": jpeg,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.08),
    "scaled down and up": lambda picture: picture.resize((20, 20)).resize((SIDE, SIDE)),
}
TRAINING = [drawing(seed) for seed in range(300)]
HELD_OUT = [drawing(seed) for seed in range(1000, 1150)]


def spaces(painted: list[Image.Image]) -> dict[str, Space]:
    sets = (painted, TRAINING, HELD_OUT)
    small = [pixels_of(pictures, 8).astype(np.float64) for pictures in sets]
    centre = small[1].mean(0)
    return {
        "pixels": Space.of((pixels_of(pictures, 16) for pictures in sets), pixel_closeness),
        "hash": Space.of((hash_rows(pictures) for pictures in sets), hash_closeness),
        "features": Space.of((centred(rows, centre) for rows in small), cosine),
    }


def found(painted: list[Image.Image]) -> Copies:
    return find_copies(spaces(painted))


@pytest.mark.parametrize("kind", COPIES)
def test_law_planted_copies_are_found_with_what_they_copy(kind: str) -> None:
    planted = [COPIES[kind](TRAINING[n]) for n in range(0, 60, 3)]
    told = found(planted)
    assert told.is_copy.mean() >= 0.9
    np.testing.assert_array_equal(told.nearest["features"], range(0, 60, 3))


def test_law_planted_pictures_that_are_no_copies_are_not_found() -> None:
    told = found([drawing(seed) for seed in range(5000, 5200)])
    assert told.is_copy.mean() <= 0.02
    low, high = told.facts["copies, low 95%"], told.facts["copies, high 95%"]
    assert low <= told.facts["copies"] <= high  # pyright: ignore[reportOperatorIssue]


def test_law_a_mixture_has_the_share_that_was_planted() -> None:
    painted = [jpeg(TRAINING[n]) for n in range(20)] + [drawing(seed) for seed in range(6000, 6060)]
    told = found(painted)
    assert told.is_copy[:20].all()
    assert told.facts["copies"] == pytest.approx(0.25, abs=0.03)


def test_law_at_most_the_expected_share_of_held_out_pictures_is_near() -> None:
    for share in (0.0, 0.01, 0.1):
        threshold = calibrated(spaces(HELD_OUT[:2])["features"], share)
        assert threshold.held_out_share <= share + 1e-9


def test_law_near_duplicates_within_the_training_pictures_are_told() -> None:
    doubled = [*TRAINING, *TRAINING[:150]]
    rows = [pixels_of(pictures, 16) for pictures in (HELD_OUT[:5], doubled, HELD_OUT)]
    assert calibrated(Space.of(rows, pixel_closeness)).training_share == pytest.approx(300 / 450, abs=0.02)


def test_law_the_nearest_other_is_never_the_row_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(600, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    brute = rows @ rows.T - 10 * np.eye(600)
    np.testing.assert_allclose(nearest_other(rows, cosine), brute.max(1), atol=1e-12)


def test_law_hash_closeness_counts_the_bits_that_differ() -> None:
    rows = hash_rows(TRAINING[:6])
    expected = [[-float((a != b).sum()) for b in rows] for a in rows]
    np.testing.assert_array_equal(hash_closeness(rows, rows), expected)


@pytest.mark.parametrize("size", [(48, 32), (32, 50)])
def test_law_a_copy_of_the_middle_of_a_picture_that_is_no_square_has_its_hash(size: tuple[int, int]) -> None:
    stored = [
        drawing(seed).resize((2 * SIDE, 2 * SIDE)).crop((7, 3, 7 + size[0], 3 + size[1]))
        for seed in range(40)
    ]
    painted = [to_pil_image(square(picture, 24)) for picture in stored]
    apart = -np.diag(hash_closeness(hash_rows(painted), hash_rows(stored)))
    assert np.median(apart) <= 2
    assert apart.max() <= 10


def test_the_interval_of_no_copies_is_not_empty() -> None:
    low, high = share_interval(0, 100)
    assert low == pytest.approx(0, abs=1e-12)
    assert 0.02 < high < 0.06


def test_without_held_out_pictures_nothing_is_told() -> None:
    space = spaces(HELD_OUT[:2])["features"]
    with pytest.raises(ValueError, match="held-out"):
        calibrated(Space(space.painted, space.training, space.held_out[:0], cosine))
