"""The pictures of `make styles`: names that are drawn in at least three of six emoji sets, from the packages of Iconify."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from corgi.demo.npm_packages import NpmPackage, fetch, read_json
from corgi.demo.pictures import (
    GENDER_WORDS,
    Collection,
    Picture,
    Style,
    coarse_words,
    content_words,
    united,
)
from corgi.settings.section import digest

MIN_STYLES = 3
"""Number of sets in which a name must be drawn."""
_BOX: tuple[tuple[Literal["left", "top", "width", "height"], int], ...] = (
    ("left", 0),
    ("top", 0),
    ("width", 16),
    ("height", 16),
)
"""Iconify's default box of an icon."""


class Box(TypedDict):
    """The box of an icon, or the default box of a set's icons."""

    left: NotRequired[int]
    top: NotRequired[int]
    width: NotRequired[int]
    height: NotRequired[int]


class IconJson(Box):
    """An icon of an icons.json: the elements inside its `svg`."""

    body: str


class IconsJson(Box):
    """The part of an icons.json that is read."""

    icons: dict[str, IconJson]


@dataclass(frozen=True, slots=True)
class IconSet:
    """A set of icons: its package and its style."""

    package: NpmPackage
    style: Style


@dataclass(frozen=True, slots=True)
class Icon:
    """One icon of a set; `name` has dashes between its words if the set writes them."""

    name: str
    svg: str

    @property
    def concept(self) -> str:
        """Return what the icon shows, spelled the same in all sets."""
        return self.name.replace("-", "")


def fetched_styles(folder: Path) -> Collection:
    """Return the collection of the six sets; packages that are not yet in the folder are fetched.

    Raises:
        InputError: a package cannot be fetched, or is not the pinned one.

    """
    found = {each.style: icons(read_json(fetch(each.package, folder), "icons.json")) for each in ICON_SETS}
    pinned = digest([each.package.integrity for each in ICON_SETS])[:12]
    credit = "; ".join(each.style.credit for each in ICON_SETS)
    told = (
        f"Pictures, rasterised, from the packages @iconify-json: {credit}. Captions: the names of the icons."
    )
    return Collection(f"iconify-{pinned}", told, pictures_of(found))


def pictures_of(found: Mapping[Style, Iterable[Icon]]) -> tuple[Picture, ...]:
    """Return the pictures of names that are drawn in at least MIN_STYLES sets, sorted by id.

    A name is spelled as in the set that divides it into the most words. If a set draws a name twice, the first icon is
    used. Names that differ only in gender or direction, or that share a drawing in one set (an astronaut and a woman
    astronaut), are one concept, so that a split by concept holds out nothing that training has seen.
    """
    drawn: dict[str, dict[Style, Icon]] = defaultdict(dict)
    for style, each in found.items():
        for icon in each:
            drawn[icon.concept].setdefault(style, icon)
    kept = {concept: by for concept, by in sorted(drawn.items()) if len(by) >= MIN_STYLES}
    captions = {concept: _caption(icon.name for icon in by.values()) for concept, by in kept.items()}
    marks = {
        concept: [
            f"name {_neutral(captions[concept])}",
            *(f"drawing {style.key} {icon.svg}" for style, icon in by.items()),
        ]
        for concept, by in kept.items()
    }
    concepts = united(captions, marks)
    words = {concept: content_words([caption]) for concept, caption in captions.items()}
    coarse = coarse_words(words, concepts)
    pictures = [
        Picture(f"{style.key}-{name}", icon.svg, captions[name], (), coarse[name], concepts[name], style)
        for name, by in kept.items()
        for style, icon in by.items()
    ]
    return tuple(sorted(pictures, key=lambda picture: picture.id))


def icons(told: IconsJson) -> Iterator[Icon]:
    """Yield the icons of an icons.json that show no skin tone, sorted by name, including icons that newer versions of a set no longer have."""
    for name, icon in sorted(told["icons"].items()):
        if not _has_skin_tone(name):
            yield Icon(name, _svg(icon, told))


def _svg(icon: IconJson, of_set: IconsJson) -> str:
    """Return an icon as an SVG document, with its own box or else that of the set."""
    box = [icon.get(side, of_set.get(side, least)) for side, least in _BOX]
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'


def _has_skin_tone(name: str) -> bool:
    return "skin-tone" in name or "skintone" in name


def _neutral(caption: str) -> str:
    """Return a caption without words of gender and direction, or the caption itself if nothing would remain."""
    words = caption.removesuffix(" facing right").split()
    return " ".join(word for word in words if word not in GENDER_WORDS | {"person"}) or caption


def _caption(names: Iterable[str]) -> str:
    """Return the name with the most words, the alphabetically first on ties."""
    return min(names, key=lambda name: (-name.count("-"), name)).replace("-", " ").strip()


ICON_SETS: tuple[IconSet, ...] = (
    IconSet(
        NpmPackage(
            "@iconify-json/openmoji",
            "1.2.29",
            "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        ),
        Style("openmoji", "OpenMoji", "OpenMoji, CC BY-SA 4.0"),
    ),
    IconSet(
        NpmPackage(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        Style("noto", "Noto", "Noto Emoji, Google, Apache 2.0"),
    ),
    IconSet(
        NpmPackage(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        Style("twemoji", "Twemoji", "Twemoji, Twitter and contributors, CC BY 4.0"),
    ),
    IconSet(
        NpmPackage(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        Style("fluent-emoji-flat", "Fluent", "Fluent UI Emoji, Microsoft, MIT"),
    ),
    IconSet(
        NpmPackage(
            "@iconify-json/emojione",
            "1.2.3",
            "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        ),
        Style("emojione", "EmojiOne", "EmojiOne, CC BY 4.0"),
    ),
    IconSet(
        NpmPackage(
            "@iconify-json/fxemoji",
            "1.2.2",
            "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
        Style("fxemoji", "FxEmoji", "FxEmojis, Mozilla, Apache 2.0"),
    ),
)
"""The sets of `make styles`, with the credit that each licence requires."""
