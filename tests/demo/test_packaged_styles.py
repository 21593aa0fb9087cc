import re
from collections import Counter, defaultdict

import pytest

from corgi.demo import packaged_styles
from corgi.demo.packaged_styles import OPENMOJI, TWEMOJI, packaged
from corgi.demo.pictures import MIN_CONCEPTS_PER_COARSE_WORD, content_words
from corgi.settings.errors import InputError


def test_the_collection_is_the_size_the_demo_is_planned_for():
    pictures = packaged().pictures
    assert 3_000 <= len(pictures) <= 3_900
    assert 1_400 <= len({picture.concept for picture in pictures}) <= 1_950


def test_every_emoji_is_there_in_both_styles_and_has_no_skin_tone():
    styles = defaultdict(list)
    for picture in packaged().pictures:
        key = picture.id.partition("-")[2]
        assert picture.id == f"{picture.style.key}-{key}"
        assert "skin tone" not in picture.caption
        styles[key].append(picture)
    for both in styles.values():
        assert {picture.style for picture in both} == {OPENMOJI, TWEMOJI}
        assert len({(one.caption, one.aliases, one.coarse, one.concept) for one in both}) == 1
        assert len({picture.svg for picture in both}) == 2


def test_captions_are_unique_within_a_style_and_readable():
    pictures = packaged().pictures
    assert len({(picture.style, picture.caption) for picture in pictures}) == len(pictures)
    for picture in pictures:
        for text in (picture.caption, *picture.aliases):
            assert text == text.strip()
            assert text
            assert not set(":_") & set(text)
        assert re.match(r"\s*<", picture.svg)


def test_no_concept_is_named_like_another_and_equal_drawings_are_of_one():
    for what in ("caption", "svg"):
        concepts = defaultdict(set)
        for picture in packaged().pictures:
            concepts[getattr(picture, what)].add(picture.concept)
        assert all(len(found) == 1 for found in concepts.values())


def test_a_coarse_word_is_in_the_texts_of_enough_concepts():
    concepts = defaultdict(set)
    for picture in packaged().pictures:
        for word in content_words((picture.caption, *picture.aliases)):
            concepts[word].add(picture.concept)
    coarse = Counter(picture.coarse for picture in packaged().pictures)
    assert 40 <= len(coarse) <= 90
    assert {"flag", "face", "woman", "heart"} <= set(coarse)
    assert all(len(concepts[word]) >= MIN_CONCEPTS_PER_COARSE_WORD for word in coarse if word)


def test_credits_name_work_and_licence_of_the_list_and_of_each_picture():
    told = packaged()
    for part in ("OpenMoji", "CC BY-SA 4.0", "Twemoji", "CC BY 4.0"):
        assert part in told.credit
    assert "CC BY-SA 4.0" in OPENMOJI.credit
    assert "CC BY 4.0" in TWEMOJI.credit


def test_drawings_that_are_not_installed_are_one_line(monkeypatch):
    monkeypatch.setitem(packaged_styles.FOLDERS, TWEMOJI, ("no_such_package", "svg"))
    with pytest.raises(
        InputError, match="the drawings of Twemoji are not installed; nothing was started"
    ) as caught:
        packaged.__wrapped__()
    assert "\n" not in str(caught.value)
