"""Planted copies are found and planted non-copies are not, by a threshold that held-out pictures set."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from corgi.evaluation.copying import nearest, square_closeness
from corgi.evaluation.memorisation import (
    NEIGHBOUR,
    Copies,
    Space,
    calibrated,
    distances_to_others,
    find_copies,
    relative_distance,
    share_interval,
)
from corgi.evaluation.training_pictures import pixels_of

SIDE = 32
DRAWS = np.random.default_rng(0)


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


def pale(seed: int) -> Image.Image:
    """A picture of a kind of which all look alike: little contrast on one ground."""
    return Image.blend(Image.new("RGB", (SIDE, SIDE), (230, 225, 210)), drawing(10**6 + seed), 0.1)


def jpeg(picture: Image.Image) -> Image.Image:
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=75)
    return Image.open(body).convert("RGB")


COPIES = {
    "itself": lambda picture: picture,
    "as JPEG": jpeg,
    "scaled down and up": lambda picture: picture.resize((12, 12)).resize((SIDE, SIDE)),
    "without details": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.0)),
}
TRAINING = [*map(drawing, range(300)), *map(pale, range(100))]
HELD_OUT = [*map(drawing, range(1000, 1300)), *map(pale, range(1000, 1100))]
SOME = range(0, len(TRAINING), 4)
"""Of the training pictures, the copied ones: drawings and pale ones."""


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    return pixels_of(pictures, 16)


TRAINING_ROWS, HELD_OUT_ROWS = pixels(TRAINING), pixels(HELD_OUT)


def found(painted: list[Image.Image]) -> Copies:
    return find_copies(Space(pixels(painted), TRAINING_ROWS, HELD_OUT_ROWS))


def copied(kind: str) -> list[Image.Image]:
    return [COPIES[kind](TRAINING[n]) for n in SOME]


@pytest.mark.parametrize("kind", COPIES)
def test_law_planted_copies_are_found_with_what_they_copy(kind: str) -> None:
    told = found(copied(kind))
    assert told.is_copy.mean() >= 0.9
    assert (told.nearest == SOME).mean() >= 0.95


def test_law_a_brighter_copy_is_found_where_brightness_is_not_all_that_tells_pictures_apart() -> None:
    told = found([ImageEnhance.Brightness(picture).enhance(1.08) for picture in TRAINING[:300:4]])
    assert told.is_copy.mean() >= 0.9


def test_law_one_distance_for_all_pictures_misses_copies_where_a_part_of_the_data_is_alike() -> None:
    """Held-out pale pictures are nearer to pale training pictures than a copy without details is to its drawing: the distance alone tells nothing."""
    to_training = nearest(HELD_OUT_ROWS, TRAINING_ROWS, square_closeness)[1]
    threshold = np.quantile(to_training, 0.98, method="higher")
    drawn = pixels(copied("without details")[:75])
    assert (nearest(drawn, TRAINING_ROWS, square_closeness)[1] > threshold).mean() < 0.1


def test_law_planted_pictures_that_are_no_copies_are_not_found() -> None:
    others = [*map(drawing, range(5000, 5300)), *map(pale, range(5000, 5100))]
    for kind, change in COPIES.items():
        told = found([change(picture) for picture in others])
        assert told.is_copy.mean() <= 0.05, kind
        low, high = told.share["copies, low 95%"], told.share["copies, high 95%"]
        assert low <= told.share["copies"] <= high


def test_law_a_mixture_has_the_share_that_was_planted() -> None:
    told = found([*map(jpeg, TRAINING[:20]), *map(drawing, range(6000, 6060))])
    assert told.is_copy[:20].all()
    assert told.share["copies"] == pytest.approx(0.25, abs=0.03)
    assert told.part(slice(0, 20)).share["copies"] == 1


def test_law_copies_of_pictures_with_near_duplicates_are_found() -> None:
    """Some training pictures are there several times, each time saved again: the nearest neighbour is as near as a copy."""
    again = [jpeg(TRAINING[n].resize((side, side))) for n in SOME for side in (SIDE, SIDE + 2, SIDE + 5)]
    training = [*TRAINING, *(picture.resize((SIDE, SIDE)) for picture in again)]
    rows = [pixels(pictures) for pictures in (copied("as JPEG"), training, HELD_OUT)]
    assert find_copies(Space.of(rows)).is_copy.mean() >= 0.9


def test_law_at_most_the_expected_share_of_held_out_pictures_is_near() -> None:
    space = Space(HELD_OUT_ROWS[:2], TRAINING_ROWS, HELD_OUT_ROWS)
    for share in (0.0, 0.01, 0.1):
        threshold = calibrated(space, share)
        assert share - 1 / len(HELD_OUT) - 1e-9 <= threshold.held_out_share <= share + 1e-9


def test_law_near_duplicates_within_the_training_pictures_are_told() -> None:
    doubled = np.concatenate([TRAINING_ROWS, TRAINING_ROWS[:150]])
    threshold = calibrated(Space(HELD_OUT_ROWS[:5], doubled, HELD_OUT_ROWS))
    assert threshold.training_share == pytest.approx(300 / 550, abs=0.03)


def test_law_scale_and_place_of_the_rows_do_not_matter() -> None:
    rows, training = HELD_OUT_ROWS[:30].astype(np.float64), TRAINING_ROWS.astype(np.float64)
    at, distance = relative_distance(rows, training)
    moved = relative_distance(rows * 0.01 + 3, training * 0.01 + 3)
    np.testing.assert_array_equal(moved[0], at)
    np.testing.assert_allclose(moved[1], distance, rtol=1e-6)


@pytest.mark.parametrize("number", [600, NEIGHBOUR + 1, 4, 2])
def test_law_distances_to_others_are_those_by_brute_force(number: int) -> None:
    rows = DRAWS.normal(size=(number, 5))
    apart = np.sqrt(((rows[:, None] - rows[None]) ** 2).mean(2)) + np.diag(np.full(number, np.inf))
    asked = DRAWS.permutation(number)[: number // 2]
    expected = np.sort(apart[asked], axis=1)[:, : min(NEIGHBOUR, number - 1)]
    np.testing.assert_allclose(distances_to_others(rows, asked), expected, atol=1e-9)


def test_only_the_same_picture_is_near_to_one_whose_neighbours_are_all_the_same() -> None:
    training = np.concatenate([np.zeros((NEIGHBOUR + 1, 3)), DRAWS.normal(size=(40, 3)) + 9])
    distance = relative_distance(np.array([[0.0, 0, 0], [0.1, 0, 0]]), training)[1]
    np.testing.assert_array_equal(distance, [0, np.inf])


def test_the_interval_of_no_copies_is_not_empty() -> None:
    low, high = share_interval(0, 100)
    assert low == pytest.approx(0, abs=1e-12)
    assert 0.02 < high < 0.06


def test_without_held_out_pictures_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="held-out"):
        calibrated(Space(HELD_OUT_ROWS, TRAINING_ROWS, HELD_OUT_ROWS[:0]))
