"""Pictures in several art styles: what each shows, its concept, and the licence under which it may be used."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MIN_CONCEPTS_PER_COARSE_WORD = 6
GENDER_WORDS = frozenset({"man", "men", "woman", "women"})
_FUNCTION_WORDS = frozenset({"and", "facing", "for", "from", "not", "over", "the", "with"})


@dataclass(frozen=True, slots=True)
class Style:
    """One set of drawings: `key` is used in file names, `credit` is the attribution that its licence requires for each picture."""

    key: str
    name: str
    credit: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing; `id` ("twemoji-1F98A") is the stem of its file.

    `caption` and `aliases` name what it shows, without the style. `coarse` is a word that several concepts share, or
    None. Drawings of one `concept` exist in several styles.
    """

    id: str
    svg: str
    caption: str
    aliases: tuple[str, ...]
    coarse: str | None
    concept: str
    style: Style


@dataclass(frozen=True)
class Collection:
    """The pictures of one list; `version` changes with the drawings, `credit` names all authors and licences."""

    version: str
    credit: str
    pictures: tuple[Picture, ...]


def subset(pictures: Iterable[Picture], limit: int) -> tuple[Picture, ...]:
    """Keep at most `limit` pictures: whole concepts in the order of their hash, without those that no longer fit."""
    by_concept: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_concept[picture.concept].append(picture)
    kept: list[Picture] = []
    for concept in sorted(by_concept, key=stable_hash):
        if len(kept) + len(by_concept[concept]) <= limit:
            kept.extend(by_concept[concept])
    return tuple(sorted(kept, key=lambda picture: picture.id))


def stable_hash(text: str) -> int:
    """Hash text to 64 bits, the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def content_words(texts: Iterable[str]) -> frozenset[str]:
    """Return the content words of some texts: at least three letters, without function words and without the genitive 's."""
    words = {word for text in texts for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())}
    words = {word.removesuffix("'s") for word in words}
    return frozenset(word for word in words if len(word) > 2) - _FUNCTION_WORDS


def coarse_words(words: Mapping[str, frozenset[str]], concepts: Mapping[str, str]) -> dict[str, str | None]:
    """Choose by hash one coarse word for each key: one of its words that at least six concepts share, if any.

    Args:
        words: the content words of each key.
        concepts: the concept of each key.

    """
    sharing: dict[str, set[str]] = defaultdict(set)
    for key, found in words.items():
        for word in found:
            sharing[word].add(concepts[key])
    vocabulary = {word for word, by in sharing.items() if len(by) >= MIN_CONCEPTS_PER_COARSE_WORD}
    chosen: dict[str, str | None] = {}
    for key, found in words.items():
        shared = sorted(found & vocabulary)
        chosen[key] = shared[stable_hash(key) % len(shared)] if shared else None
    return chosen


def united(captions: Mapping[str, str], marks: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the concept of each key: the shortest, if possible neutral, caption of its connected keys.

    Keys are connected if they share a mark, directly or through other keys.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for key in captions:
        for mark in marks[key]:
            parent[root(f"mark {mark}")] = root(f"key {key}")
    members: dict[str, list[str]] = defaultdict(list)
    for key, caption in captions.items():
        members[root(f"key {key}")].append(caption)
    titles = {node: min(called, key=_title_order) for node, called in members.items()}
    return {key: titles[root(f"key {key}")] for key in captions}


def _title_order(caption: str) -> tuple[bool, int, str]:
    return not GENDER_WORDS.isdisjoint(caption.split()), len(caption), caption
