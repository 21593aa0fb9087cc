"""The bounded tokenizer: open_clip's own ids for any text, and work that grows with the text, not with its square."""

import copy
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from corgi.clip.bounded_tokens import BoundedTokenizer, Pair, merged
from corgi.clip.towers import build_model
from corgi.settings.clip import TowerRef

WHOLE = SimpleTokenizer()
BOUNDED = BoundedTokenizer(SimpleTokenizer())
WORDS = st.text(st.characters(codec="utf-8"), max_size=60)
ENDLESS = st.builds(lambda part, times: part * times, st.text("abetion-1é写🦊", min_size=1, max_size=9), st.integers(1, 60))  # fmt: skip
TEXTS = st.lists(
    st.one_of(WORDS, ENDLESS, st.sampled_from(["a photo of", "it's", "<end_of_text>", "&amp;lt;", "\x00"]))
).map(" ".join)


@pytest.mark.law
@settings(max_examples=300)
@given(TEXTS, st.integers(2, 80))
def test_law_ids_are_open_clips(text: str, length: int) -> None:
    assert torch.equal(BOUNDED([text], length), WHOLE([text], length))
    assert BOUNDED.encode(text) == WHOLE.encode(text)


@pytest.mark.law
@given(st.text("abc", min_size=1, max_size=40), st.permutations([(x, y) for x in ("a", "b", "c", "ab", "ba", "aa", "abc", "bc") for y in ("a", "b", "c", "bc", "aa")]))  # fmt: skip
def test_law_merging_is_open_clips_for_any_order_of_merges(word: str, merges: list[Pair]) -> None:
    other = copy.copy(WHOLE)
    other.bpe_ranks, other.cache = {pair: rank for rank, pair in enumerate(merges)}, {}
    assert merged([*word[:-1], word[-1] + "</w>"], other.bpe_ranks) == other.bpe(word).split(" ")


def test_an_endless_word_is_cut_as_open_clip_cuts_it() -> None:
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1500))
    for text in (letters, "a" * 1500, "lalo" * 400, "写" * 500, f"{letters[:300]} {letters}"):
        assert torch.equal(BOUNDED([text]), WHOLE([text]))


class Counted(Mapping[Pair, int]):
    """Ranks of pairs that count how often they are looked up."""

    def __init__(self) -> None:
        self.looks = 0

    def __getitem__(self, pair: Pair) -> int:
        self.looks += 1
        return WHOLE.bpe_ranks[pair]

    def __iter__(self) -> Iterator[Pair]:
        return iter(WHOLE.bpe_ranks)

    def __len__(self) -> int:
        return len(WHOLE.bpe_ranks)


@pytest.mark.parametrize("part", ["a", "tion", "qzjx"])
def test_twice_the_word_is_twice_the_work(part: str) -> None:
    def looks(times: int) -> int:
        ranks = Counted()
        merged(list(part * times), ranks)
        return ranks.looks

    assert 1000 < looks(8000) < 2.2 * looks(4000)


def test_words_are_not_kept_for_ever() -> None:
    one = BoundedTokenizer(SimpleTokenizer())
    one([f"{number:x}x" * 40 for number in range(500)])
    assert all(len(word) <= 64 for word in one._known)
    assert len(one.cache) == len(one.all_special_ids)


def test_towers_have_it(tmp_path: Path) -> None:
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}
    config = tmp_path / "bounded.json"
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    ref = TowerRef(name="bounded", model="bounded", pretrained="random", config=str(config))
    assert isinstance(build_model(ref)[2], BoundedTokenizer)
