"""What may be asked of a trained run, and that no two prompts share a file."""

import string
import unicodedata
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.inference.generate import Generator
from corgi.inference.prompts import MAX_SEED, check_prompts, file_name
from corgi.settings.errors import InputError

PROMPTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
WRONG = {
    "no words": (["a fox", " \t\u3000"], 1, 0),
    "nothing": ([""], 1, 0),
    "not UTF-8": (["caf\udce9"], 1, 0),
    "no picture": (["a fox"], 0, 0),
    "fewer than none": (["a fox"], -3, 0),
    "a seed below": (["a fox"], 1, -1),
    "a seed above": (["a fox"], 1, MAX_SEED + 1),
    "a last seed above": (["a fox"], 3, MAX_SEED - 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_painted_is_one_line(name: str) -> None:
    captions, n, seed = WRONG[name]
    with pytest.raises(InputError) as caught:
        check_prompts(captions, n, seed)
    assert "\n" not in str(caught.value)
    unbuilt = Generator((), *[cast("Any", None)] * 4)
    with pytest.raises(InputError):  # from Python too, before any model is asked
        unbuilt.generate(captions[-1], n, seed)


def test_every_seed_inside_may_be_asked_for() -> None:
    check_prompts(["a fox", "写真"], 1, MAX_SEED)
    check_prompts(["a fox"], 3, MAX_SEED - 2)


@given(
    st.lists(PROMPTS, unique=True, max_size=20),
    st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=5, unique=True),
    st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=2, unique=True),
)
def test_law_each_prompt_seed_and_run_has_a_file_of_its_own(
    prompts: list[str], seeds: list[int], models: list[str]
) -> None:
    names = [file_name(prompt, seed, one) for prompt in prompts for seed in seeds for one in models]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert Path(name).name == name
        assert len(name.encode()) < 200
        assert not any(unicodedata.category(letter).startswith(("C", "Z")) for letter in name)


@given(st.text(st.characters(categories=["Ll", "Lo", "Nd", "Mn"]), min_size=1, max_size=12))
def test_law_letters_of_any_script_are_kept(word: str) -> None:
    kept = unicodedata.normalize("NFC", word.lower())
    assert file_name(f"“{word}!”", 7, "").startswith(f"{kept}-")


@pytest.mark.parametrize("ending", ["", *string.punctuation, "🦊", "🐺"])
def test_what_a_name_leaves_out_still_tells_prompts_apart(ending: str) -> None:
    assert (file_name(f"fox{ending}", 0, "") == file_name("fox", 0, "")) is (ending == "")
