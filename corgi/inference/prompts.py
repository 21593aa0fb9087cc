"""Which requests a trained run accepts, and the names of its pictures' files. Nothing here loads a model."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from corgi.settings.errors import InputError

NEIGHBOURS = "neighbours"
"""Key of a painted picture's `info`, and of the text in its PNG: the uids of the train pictures its decoder looked at."""
MAX_SEED = 2**63 - 1
MAX_NAME_BYTES = 100
"""Longest readable part of a file name, bytes of UTF-8; file systems allow 255 for the whole."""
_DIGEST_BYTES = 5
_KEPT_CATEGORIES = "LMN"
"""First letters of the Unicode categories that a file name keeps: letters of any script, their marks, and digits."""


def check_prompts(captions: Sequence[str], n: int, seed: int) -> None:
    """Check a request for n pictures per caption, with seeds from `seed` on.

    Raises:
        InputError: a caption has no words or is no Unicode text, n is less than one, or a seed is outside 0..2^63-1.

    """
    for number, caption in enumerate(captions, start=1):
        if not caption.strip():
            raise InputError(f"caption {number} has no words; nothing was painted; say what to paint")
        if any(unicodedata.category(letter) == "Cs" for letter in caption):
            raise InputError(f"caption {number} is no UTF-8 text; nothing was painted; encode it as UTF-8")
    if n < 1:
        raise InputError(f"n={n} asks for no picture; nothing was painted; ask for at least one")
    if seed < 0 or seed + n - 1 > MAX_SEED:
        raise InputError(
            f"seed={seed} with n={n} needs seeds outside 0..{MAX_SEED}; nothing was painted; choose a seed inside"
        )


def file_name(caption: str, seed: int, models: str) -> str:
    """Return the PNG file's name of a caption and seed: readable words, a digest of caption and models, the seed.

    Different captions have different names, whatever their script, length and case, and so has one caption painted by
    different models, which `models` names.
    """
    text = unicodedata.normalize("NFC", caption.lower())
    kept = "".join(letter if unicodedata.category(letter)[0] in _KEPT_CATEGORIES else "-" for letter in text)
    words = re.sub("-+", "-", kept).encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip("-")
    digest = hashlib.blake2b(f"{models}\0{caption}".encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{words or 'caption'}-{digest}-{seed}.png"
