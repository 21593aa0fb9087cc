from collections import Counter
from typing import Any

import numpy as np
import pytest

from corgi.demo.iconify_styles import ICON_SETS, MIN_STYLES, IconsJson, icons, pictures_of
from corgi.demo.pictures import Style
from corgi.demo.raster import render

STYLES = [Style(f"set{number}", f"Set {number}", f"Set {number}, CC0") for number in range(4)]
RED = '<path fill="red" d="M0 0h16v16H0z"/>'


def told(*names: str) -> IconsJson:
    return {"icons": {name: {"body": f"<!--{name}-->{RED}"} for name in names}}


def test_icons_with_a_skin_tone_are_left_out_and_hidden_ones_are_not():
    found: Any = told("fox", "boy-light-skin-tone", "boy", "girl-medium-skin-tone")
    found["icons"]["old"] = {"body": RED, "hidden": True}
    assert [icon.name for icon in icons(found)] == ["boy", "fox", "old"]


@pytest.mark.parametrize(
    ("icon", "of_set", "box"),
    [
        ({}, {}, "0 0 16 16"),
        ({}, {"width": 36, "height": 36}, "0 0 36 36"),
        ({"width": 20, "left": -2}, {"width": 36, "height": 36, "top": 1}, "-2 1 20 36"),
    ],
)
def test_the_box_of_an_icon_is_its_own_else_that_of_its_set(icon, of_set, box):
    of_file: Any = {"icons": {"fox": {"body": RED, **icon}}, **of_set}
    [found] = icons(of_file)
    assert f'viewBox="{box}"' in found.svg


def test_an_icon_is_drawn_over_its_whole_box():
    [found] = icons(told("fox"))
    assert (np.asarray(render(found.svg, 32)) == (255, 0, 0)).all()


def test_concepts_of_enough_sets_are_kept_whatever_the_dashes_and_named_in_the_most_words():
    names = [("red-heart", "fox"), ("redheart",), ("red-heart", "fox"), ("fox-", "owl")]
    found = {style: list(icons(told(*each))) for style, each in zip(STYLES, names, strict=True)}
    pictures = pictures_of(found)
    assert MIN_STYLES == 3
    assert Counter(picture.concept for picture in pictures) == {"red heart": 3, "fox": 3}
    assert {picture.caption for picture in pictures if picture.concept == "red heart"} == {"red heart"}
    assert [picture.id for picture in pictures] == sorted(picture.id for picture in pictures)
    assert {picture.style.credit for picture in pictures} == {style.credit for style in STYLES}


def test_names_that_differ_in_gender_or_direction_or_share_a_drawing_are_one_concept():
    names = (
        "astronaut",
        "man-astronaut",
        "woman-walking-facing-right",
        "person-walking",
        "fox",
        "wolf",
        "man",
    )
    each = told(*names)
    shared = told(*names)
    shared["icons"]["wolf"] = shared["icons"]["fox"]
    found = {style: list(icons(each)) for style in STYLES[1:3]} | {STYLES[0]: list(icons(shared))}
    pictures = pictures_of(found)
    assert len(pictures) == 3 * len(names)
    assert {picture.caption: picture.concept for picture in pictures} == {
        "astronaut": "astronaut",
        "man astronaut": "astronaut",
        "woman walking facing right": "person walking",
        "person walking": "person walking",
        "fox": "fox",
        "wolf": "fox",
        "man": "man",
    }


def test_of_a_set_that_draws_a_concept_twice_the_first_icon_counts():
    twice = told("fox", "fo-x")
    twice["icons"]["fo-x"]["body"] = "<g/>"
    found = {STYLES[0]: icons(twice), **{style: icons(told("fox")) for style in STYLES[1:3]}}
    pictures = pictures_of(found)
    assert len(pictures) == 3
    assert [picture.svg for picture in pictures if picture.style == STYLES[0]] == [
        next(icons({**twice, "icons": {"fo-x": twice["icons"]["fo-x"]}})).svg
    ]


def test_six_sets_are_pinned_by_version_and_integrity_each_with_its_licence():
    assert len({each.style.key for each in ICON_SETS}) == len(ICON_SETS) == 6
    for each in ICON_SETS:
        assert each.package.name == f"@iconify-json/{each.style.key}"
        assert each.package.integrity.startswith("sha512-")
        assert len(each.package.integrity) == len("sha512-") + 88
        assert any(licence in each.style.credit for licence in ("CC BY", "Apache", "MIT"))
