import hashlib
import re
from collections import Counter, defaultdict

import pytest

from corgi.demo.openmoji import CREDIT, MIN_CONCEPTS_PER_COARSE_WORD, catalogue, stable_hash, subset


@pytest.fixture(scope="module")
def by_caption():
    return {picture.caption: picture for picture in catalogue()}


def concepts_of(by_caption, *captions):
    return {by_caption[caption].concept for caption in captions}


def without_tones(caption):
    return re.sub(r" [a-z-]+ skin tone", "", caption)


def test_catalogue_is_the_size_the_demo_is_planned_for():
    pictures = catalogue()
    assert 3_850 <= len(pictures) <= 4_050
    assert 1_650 <= len({picture.concept for picture in pictures}) <= 1_950
    held_out = {one.concept for one in pictures if stable_hash(f"split {one.concept}") % 10 == 0}
    names = {without_tones(one.caption) for one in pictures if one.concept in held_out}
    assert len(held_out) > 150
    assert len(names) > 165


def test_ids_and_captions_are_unique_and_readable():
    pictures = catalogue()
    assert len({picture.codepoints for picture in pictures}) == len(pictures)
    assert len({picture.caption for picture in pictures}) == len(pictures)
    for picture in pictures:
        for text in (picture.caption, *picture.aliases):
            assert text == text.strip()
            assert text
            assert not set(":_") & set(text)
        assert picture.svg_path.stem == picture.codepoints


def test_names_come_from_the_emoji_package(by_caption):
    assert by_caption["red heart"].codepoints == "2764"
    assert by_caption["red heart"].svg_path.read_bytes().startswith(b"<svg")
    assert "birthday" in by_caption["birthday cake"].aliases
    assert "flag for Norway" in by_caption["Norway"].aliases


def test_alias_says_one_picture_only():
    uses = Counter(text.lower() for one in catalogue() for text in {one.caption, *one.aliases})
    assert all(uses[alias.lower()] == 1 for one in catalogue() for alias in one.aliases)


def test_alias_is_words_and_not_the_caption_in_other_letters():
    for picture in catalogue():
        letters = [re.sub(r"[\W_]", "", text).lower() for text in (picture.caption, *picture.aliases)]
        assert len(set(letters)) == len(letters)
        assert not any(re.search(r"[a-z]\d", alias) for alias in picture.aliases)


def test_skin_tone_gender_and_direction_share_the_concept(by_caption):
    assert len(concepts_of(by_caption, "thumbs up", "thumbs up dark skin tone")) == 1
    assert (
        len(concepts_of(by_caption, "firefighter", "man firefighter", "woman firefighter light skin tone"))
        == 1
    )
    assert len(concepts_of(by_caption, "person running", "woman running facing right medium skin tone")) == 1
    assert len(concepts_of(by_caption, "mermaid", "merman", "merperson")) == 1
    holding = {one.concept for one in catalogue() if "holding hands" in one.caption}
    assert holding == {"people holding hands"}


def test_different_things_keep_their_own_concepts(by_caption):
    names = [
        "fox",
        "wolf",
        "red heart",
        "blue heart",
        "France",
        "Germany",
        "firefighter",
        "police officer",
        "handshake",
    ]
    assert len(concepts_of(by_caption, *names)) == len(names)


def test_no_concept_is_named_like_another():
    names = defaultdict(set)
    for picture in catalogue():
        names[without_tones(picture.caption)].add(picture.concept)
    assert all(len(concepts) == 1 for concepts in names.values())


def test_identical_drawings_never_belong_to_two_concepts():
    concepts = defaultdict(set)
    for picture in catalogue():
        concepts[hashlib.sha256(picture.svg_path.read_bytes()).digest()].add(picture.concept)
    assert len(concepts) < len(catalogue()), "the package is expected to hold some drawings twice"
    assert all(len(shared) == 1 for shared in concepts.values())


def test_coarse_word_is_in_the_texts_of_enough_concepts():
    concepts = defaultdict(set)
    for picture in catalogue():
        for word in re.findall(
            r"[^\W\d_]+(?:'[^\W\d_]+)?", " ".join((picture.caption, *picture.aliases)).lower()
        ):
            concepts[word.removesuffix("'s")].add(picture.concept)
    coarse = {picture.coarse for picture in catalogue()} - {None}
    assert 60 <= len(coarse) <= 90
    assert {"flag", "face", "woman", "heart"} <= coarse
    assert not coarse & {"with", "and", "the", "skin", "tone"}
    assert all(len(concepts[word]) >= MIN_CONCEPTS_PER_COARSE_WORD for word in coarse)
    for picture in catalogue():
        assert (
            picture.coarse is None or picture.coarse in " ".join((picture.caption, *picture.aliases)).lower()
        )


@pytest.mark.parametrize("limit", [1, 30, 300])
def test_subset_keeps_whole_concepts(limit):
    kept = subset(catalogue(), limit)
    sizes = Counter(picture.concept for picture in catalogue())
    assert 0 < len(kept) <= limit
    assert len(kept) > 0.9 * limit
    assert all(count == sizes[concept] for concept, count in Counter(one.concept for one in kept).items())


def test_subset_does_not_depend_on_the_order_given():
    assert subset(reversed(catalogue()), 50) == subset(catalogue(), 50)


def test_subset_of_everything_is_everything():
    assert subset(catalogue(), 10_000) == catalogue()


def test_credit_names_the_work_and_its_licence():
    assert "OpenMoji" in CREDIT
    assert "CC BY-SA 4.0" in CREDIT
