"""Which requests a trained run accepts, the keys recorded in its pictures, and the names of their files. Nothing here loads a model."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from corgi.settings.errors import InputError
from corgi.tables.schema import Reason

NEIGHBOURS = "neighbours"
"""Key of a painted picture's `info`, and of the text in its PNG: the uids of the train pictures that its decoder used."""
PROMPT, SEED, SETTINGS, RUN, MODELS, DATA = "prompt", "seed", "settings", "run", "models", "data"
"""Further keys: the caption; its seed; how it was painted, as JSON; the run's name; digests of its models and of their data."""
SIMILARITY = "similarity"
"""Key of a picture chosen among several: the cosine between its CLIP embedding and its caption's."""
TOLD = (PROMPT, SEED, SETTINGS, RUN, MODELS, DATA, SIMILARITY, NEIGHBOURS)
MAX_CAPTION_CHARS = 16_384
MAX_SEED = 2**63 - 1
MAX_NAME_BYTES = 100
"""Longest readable part of a file name, in bytes of UTF-8; file systems allow 255 for the whole name."""
_DIGEST_BYTES = 5
_KEPT_CATEGORIES = "LMN"
"""First letters of the Unicode categories that a file name keeps: letters of any script, their marks, and digits."""


def check_prompts(captions: Sequence[str], n: int, seed: int) -> None:
    """Check a request for n pictures per caption, with seeds from `seed` on.

    Raises:
        InputError: a caption has a fault, n is less than one, or a seed is outside 0..2^63-1.

    """
    for number, caption in enumerate(captions, start=1):
        fault = fault_of(caption)
        if fault is not None:
            raise InputError(f"caption {number} {fault.what}; nothing was painted; {fault.advice}")
    check_seeds(n, seed)


@dataclass(frozen=True)
class Fault:
    """Why a caption is not painted: the ledger's reason, a description, and what to do."""

    reason: Reason
    what: str
    advice: str


_EMPTY = Fault(Reason.NO_CAPTION, "has no words", "say what to paint")
_NO_TEXT = Fault(Reason.NO_CAPTION, "is no UTF-8 text", "encode it as UTF-8")
_LONG = Fault(Reason.CAPTION_LENGTH, f"has more than {MAX_CAPTION_CHARS} characters", "shorten it")


def fault_of(caption: str | None) -> Fault | None:
    """Return why a caption cannot be painted, or None if it can be. Undecodable bytes appear in it as lone surrogates."""
    if caption is None or not caption.strip():
        return _EMPTY
    if len(caption) > MAX_CAPTION_CHARS:
        return _LONG
    return _NO_TEXT if any(unicodedata.category(letter) == "Cs" for letter in caption) else None


def check_seeds(n: int, seed: int) -> None:
    """Check that n is positive and that n seeds from `seed` on are in range.

    Raises:
        InputError: n is less than one, or a seed is outside 0..2^63-1.

    """
    if n < 1:
        raise InputError(f"n={n} is not a number of pictures; nothing was painted; set at least 1")
    if seed < 0 or seed + n - 1 > MAX_SEED:
        raise InputError(
            f"seed={seed} with n={n} needs seeds outside 0..{MAX_SEED}; nothing was painted; choose a seed inside that range"
        )


def file_name(caption: str, seed: int, models: str) -> str:
    """Return the PNG file's name for a caption and seed: readable words, a digest of caption and models, the seed.

    Different captions have different names, whatever their script, length and case. The same caption painted by models
    with a different digest `models` also has a different name.
    """
    text = unicodedata.normalize("NFC", caption.lower())
    kept = "".join(letter if unicodedata.category(letter)[0] in _KEPT_CATEGORIES else "-" for letter in text)
    words = re.sub("-+", "-", kept).encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip("-")
    digest = hashlib.blake2b(f"{models}\0{caption}".encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{words or 'caption'}-{digest}-{seed}.png"
