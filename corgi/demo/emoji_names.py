"""The names of an emoji and the concept it belongs to, by its code points: names and aliases from the emoji package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import emoji

from corgi.demo.pictures import united

SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_EMOJI_STYLE, _JOINER = 0xFE0F, 0x200D
_MAN, _WOMAN, _PERSON = 0x1F468, 0x1F469, 0x1F9D1
# A joiner and one of these at the end mean female, male, or facing right.
_VARIANT_SIGNS = frozenset({0x2640, 0x2642, 0x27A1})


@dataclass(frozen=True, slots=True)
class Name:
    """The names of one emoji; `aliases` are additional names that no other emoji has."""

    caption: str
    aliases: tuple[str, ...]


def key_of(stem: str) -> str:
    """Return the key of an emoji from the stem of a drawing's file: "1f468-200d-2764-fe0f" -> "1F468-200D-2764".

    Sets differ in upper and lower case and in whether they write the emoji style selector, which does not change the emoji.
    """
    points = [int(point, 16) for point in stem.split("-")]
    return "-".join(f"{point:X}" for point in points if point != _EMOJI_STYLE)


def has_skin_tone(key: str) -> bool:
    """Return whether the emoji has a skin tone, or is one."""
    return any(int(point, 16) in SKIN_TONES for point in key.split("-"))


def names_of(keys: Iterable[str]) -> dict[str, Name]:
    """Return the names of those emoji that the emoji package knows, by key."""
    known = {key_of("-".join(f"{ord(sign):X}" for sign in text)): text for text in sorted(emoji.EMOJI_DATA)}
    found: dict[str, Name] = {}
    for key in sorted(keys):
        if key in known:
            entry = emoji.EMOJI_DATA[known[key]]
            caption = _readable(entry["en"])
            found[key] = Name(caption, tuple(_further_names(caption, entry.get("alias", ()))))
    return _without_ambiguous_aliases(found)


def concepts_of(names: Mapping[str, Name], drawings: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the concept of each key: the shortest, if possible neutral, caption of its members.

    Emoji that differ only in gender or direction, that have the same caption, or that share a drawing in one set (a man
    firefighter and a firefighter, the flags of France and of Saint Martin) are one concept, so that a split by concept
    holds out nothing that training has seen.

    Args:
        names: the names by key.
        drawings: marks of the drawings by key; equal marks mean equal drawings.

    """
    marks = {
        key: [f"base {_base(key)}", f"name {name.caption}", *(f"drawing {mark}" for mark in drawings[key])]
        for key, name in names.items()
    }
    return united({key: name.caption for key, name in names.items()}, marks)


def _readable(name: str) -> str:
    """Turn ":red_heart:" into "red heart"."""
    return name.strip(":").replace("_", " ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _further_names(caption: str, aliases: Iterable[str]) -> Iterator[str]:
    """Yield the aliases that are words (not "u55b6", "clock130") and that differ in more than punctuation or capitals."""
    seen = {_letters(caption)}
    for alias in map(_readable, aliases):
        letters = _letters(alias)
        is_code = len(letters) < 3 or re.search(r"[a-z]\d", alias) is not None
        if not is_code and letters not in seen:
            seen.add(letters)
            yield alias


def _letters(caption: str) -> str:
    return re.sub(r"[\W_]", "", caption).lower()


def _without_ambiguous_aliases(names: Mapping[str, Name]) -> dict[str, Name]:
    """Drop aliases that are another emoji's caption ("rabbit" for the rabbit's face) or an alias of several emoji."""
    uses = Counter(_letters(text) for name in names.values() for text in (name.caption, *name.aliases))
    return {
        key: replace(name, aliases=tuple(alias for alias in name.aliases if uses[_letters(alias)] == 1))
        for key, name in names.items()
    }


def _base(key: str) -> str:
    """Strip gender and direction: "1F468-200D-1F692" -> "1F9D1-200D-1F692"."""
    points = [int(point, 16) for point in key.split("-")]
    while len(points) > 2 and points[-2] == _JOINER and points[-1] in _VARIANT_SIGNS:
        points = points[:-2]
    neutral = [_PERSON if point in (_MAN, _WOMAN) else point for point in points]
    return "-".join(f"{point:X}" for point in neutral)
