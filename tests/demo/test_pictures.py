from collections import Counter

import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import (
    MIN_CONCEPTS_PER_COARSE_WORD,
    coarse_words,
    content_words,
    subset,
)


@pytest.mark.parametrize("limit", [2, 30, 300])
def test_subset_keeps_whole_concepts(limit):
    pictures = packaged().pictures
    kept = subset(pictures, limit)
    sizes = Counter(picture.concept for picture in pictures)
    assert 0 < len(kept) <= limit
    assert len(kept) > 0.9 * limit
    assert all(count == sizes[concept] for concept, count in Counter(one.concept for one in kept).items())


def test_subset_does_not_depend_on_the_order_given_and_of_everything_is_everything():
    pictures = packaged().pictures
    assert subset(reversed(pictures), 50) == subset(pictures, 50)
    assert subset(pictures, 10_000) == pictures


def test_content_words_are_letters_without_function_words_and_genitives():
    assert content_words(["The man's OX, and a fox with 2 keys"]) == {"man", "fox", "keys"}


def test_a_coarse_word_is_shared_by_enough_concepts_and_a_concept_counts_once():
    enough = MIN_CONCEPTS_PER_COARSE_WORD
    concepts = {f"key{number}": f"concept{number}" for number in range(enough)} | {
        f"double{number}": "one concept" for number in range(enough)
    }
    words = {key: frozenset({"shared"} if key.startswith("key") else {"crowded"}) for key in concepts}
    chosen = coarse_words(words, concepts)
    assert {key: word for key, word in chosen.items() if word} == dict.fromkeys(
        [f"key{number}" for number in range(enough)], "shared"
    )
    del words["key0"], concepts["key0"]
    assert set(coarse_words(words, concepts).values()) == {None}
