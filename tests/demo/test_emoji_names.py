import re
from collections import Counter

import pytest

from corgi.demo.emoji_names import concepts_of, has_skin_tone, key_of, names_of

KEYS = {
    "fox": "1F98A",
    "wolf": "1F43A",
    "red heart": "2764",
    "blue heart": "1F499",
    "birthday cake": "1F382",
    "firefighter": "1F9D1-200D-1F692",
    "man firefighter": "1F468-200D-1F692",
    "woman firefighter": "1F469-200D-1F692",
    "person running": "1F3C3",
    "woman running facing right": "1F3C3-200D-2640-200D-27A1",
    "mermaid": "1F9DC-200D-2640",
    "merman": "1F9DC-200D-2642",
    "merperson": "1F9DC",
    "France": "1F1EB-1F1F7",
    "St. Martin": "1F1F2-1F1EB",
}


@pytest.fixture(scope="module")
def names():
    return names_of(KEYS.values())


def concepts(names, *captions, drawings=None):
    found = concepts_of(names, drawings or {key: [key] for key in names})
    return {found[KEYS[caption]] for caption in captions}


@pytest.mark.parametrize("stem", ["2764-fe0f", "2764-FE0F", "2764"])
def test_a_key_is_the_same_in_whatever_way_a_set_writes_its_file(stem):
    assert key_of(stem) == "2764"


def test_a_skin_tone_is_seen_wherever_it_stands():
    assert has_skin_tone("1F44D-1F3FF")
    assert has_skin_tone("1F3FB")
    assert has_skin_tone("1F9D1-1F3FB-200D-1F692")
    assert not any(map(has_skin_tone, KEYS.values()))


def test_names_come_from_the_emoji_package_and_an_unknown_emoji_has_none(names):
    assert {caption: names[key].caption for caption, key in KEYS.items()} == {
        caption: caption for caption in KEYS
    }
    assert "birthday" in names[KEYS["birthday cake"]].aliases
    assert names_of(["41-42"]) == {}


def test_an_alias_names_one_emoji_only_and_is_words(names):
    uses = Counter(text.lower() for name in names.values() for text in {name.caption, *name.aliases})
    for name in names.values():
        assert all(uses[alias.lower()] == 1 for alias in name.aliases)
        letters = [re.sub(r"[\W_]", "", text).lower() for text in (name.caption, *name.aliases)]
        assert len(set(letters)) == len(letters)
        assert not any(re.search(r"[a-z]\d|[:_]", alias) for alias in name.aliases)


def test_gender_and_direction_share_the_concept_under_its_neutral_name(names):
    assert concepts(names, "firefighter", "man firefighter", "woman firefighter") == {"firefighter"}
    assert concepts(names, "person running", "woman running facing right") == {"person running"}
    assert len(concepts(names, "mermaid", "merman", "merperson")) == 1


def test_different_things_keep_their_own_concepts(names):
    captions = ["fox", "wolf", "red heart", "blue heart", "France", "firefighter", "mermaid"]
    assert len(concepts(names, *captions)) == len(captions)


def test_identical_drawings_are_one_concept(names):
    drawings = {key: [key] for key in names}
    assert len(concepts(names, "France", "St. Martin", drawings=drawings)) == 2
    drawings[KEYS["St. Martin"]] = ["another set's", KEYS["France"]]
    assert len(concepts(names, "France", "St. Martin", drawings=drawings)) == 1
