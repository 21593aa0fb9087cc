"""Which rows are worth keeping: named rules over captions and pictures, with the presets people know.

A caption that breaks a rule is left out; a picture left without one is kept or not as `keep_without_caption` says. Rules
about pictures look at the original's size and bytes. Every refusal has one reason of the schema. Placeholders ("image not
found") show only over the whole set: a shard counts equal bodies here, the curate stage quarantines the frequent ones.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corgi.imaging.header import Rejected
from corgi.settings.data import FilterSettings
from corgi.tables.schema import Reason

MOST_REPEATED = 100
"""Repeated bodies that a shard's facts name at most."""


@dataclass(frozen=True)
class Rules:
    """Limits with every preset resolved; 0 and () mean no limit. Fields as in FilterSettings."""

    min_caption_chars: int = 0
    max_caption_chars: int = 0
    min_caption_words: int = 0
    max_caption_words: int = 0
    caption_languages: tuple[str, ...] = ()
    min_language_score: float = 0.0
    keep_without_caption: bool = True
    min_side: int = 0
    max_aspect_ratio: float = 0.0
    min_bytes: int = 0


PRESETS: dict[str, Rules] = {
    "none": Rules(),
    "datacomp_basic": Rules(
        min_caption_chars=6,
        min_caption_words=3,
        caption_languages=("en",),
        keep_without_caption=False,
        min_side=200,
        max_aspect_ratio=3.0,
    ),
    "laion": Rules(min_caption_chars=5, keep_without_caption=False, min_bytes=5_000),
}
"""datacomp_basic: DataComp's basic filter (English, over 2 words and over 5 characters, 200 px, 3:1), its detector replaced by
py3langid. laion: what LAION-400M asked before any score (5 characters, 5 kB)."""


@dataclass(frozen=True)
class CaptionRule:
    """One rule about a caption: the setting that switches it on, its reason, and whether a caption keeps it."""

    setting: str
    reason: Reason
    holds: Callable[[str, Rules], bool]

    def is_on(self, rules: Rules) -> bool:
        """Whether the rules set it."""
        return bool(getattr(rules, self.setting))


def has_enough_chars(caption: str, rules: Rules) -> bool:
    """Whether a caption has at least `min_caption_chars` characters, outer white space aside."""
    return len(caption.strip()) >= rules.min_caption_chars


def has_not_too_many_chars(caption: str, rules: Rules) -> bool:
    """Whether a caption has at most `max_caption_chars` characters, outer white space aside."""
    return len(caption.strip()) <= rules.max_caption_chars


def has_enough_words(caption: str, rules: Rules) -> bool:
    """Whether a caption has at least `min_caption_words` words between white space."""
    return len(caption.split()) >= rules.min_caption_words


def has_not_too_many_words(caption: str, rules: Rules) -> bool:
    """Whether a caption has at most `max_caption_words` words between white space."""
    return len(caption.split()) <= rules.max_caption_words


def is_in_a_wanted_language(caption: str, rules: Rules) -> bool:
    """Whether a caption is in one of `caption_languages`, with a probability of at least `min_language_score`."""
    language, score = language_of(caption)
    return language in rules.caption_languages and score >= rules.min_language_score


CAPTION_RULES: tuple[CaptionRule, ...] = (
    CaptionRule("min_caption_chars", Reason.CAPTION_LENGTH, has_enough_chars),
    CaptionRule("max_caption_chars", Reason.CAPTION_LENGTH, has_not_too_many_chars),
    CaptionRule("min_caption_words", Reason.CAPTION_LENGTH, has_enough_words),
    CaptionRule("max_caption_words", Reason.CAPTION_LENGTH, has_not_too_many_words),
    CaptionRule("caption_languages", Reason.CAPTION_LANGUAGE, is_in_a_wanted_language),
)
"""In the order they are asked: the first that a caption breaks is its reason, the language, which costs most, comes last."""


def rules_of(settings: FilterSettings) -> Rules:
    """Return the preset's rules with the settings' own in their place."""
    preset = PRESETS[settings.preset]
    values = {name: getattr(settings, name) for name in Rules.__dataclass_fields__}
    return Rules(**{name: getattr(preset, name) if v is None else v for name, v in values.items()})


def broken_rule(caption: str, rules: Rules) -> CaptionRule | None:
    """Return the first rule that a caption breaks, or None."""
    return next(
        (rule for rule in CAPTION_RULES if rule.is_on(rules) and not rule.holds(caption, rules)), None
    )


def check_captions(captions: Sequence[str], rules: Rules) -> Rejected | None:
    """Return why a row with these captions, as the list gives them, is not worth a request, or None."""
    if rules.keep_without_caption:
        return None
    broken = [broken_rule(caption, rules) for caption in captions]
    if None in broken:
        return None
    first = next((rule for rule in broken if rule is not None), None)
    return Rejected(first.reason, first.setting) if first else Rejected(Reason.NO_CAPTION, "none in the list")


def check_picture(width: int, height: int, num_bytes: int | None, rules: Rules) -> Rejected | None:
    """Return why a picture of an original size, px, and bytes is left out, or None; unknown bytes pass."""
    if num_bytes is not None and num_bytes < rules.min_bytes:
        return Rejected(Reason.TOO_FEW_BYTES, "min_bytes")
    if min(width, height) < rules.min_side:
        return Rejected(Reason.TOO_SMALL, "min_side")
    if rules.max_aspect_ratio and max(width, height) > rules.max_aspect_ratio * min(width, height):
        return Rejected(Reason.ASPECT_RATIO, "max_aspect_ratio of the filter")
    return None


def language_of(text: str) -> tuple[str, float]:
    """Return a text's language, an ISO 639-1 code, and its probability among all languages known."""
    language, score = _identifier().classify(text)
    return str(language), float(score)


@functools.cache
def _identifier() -> Any:
    """Load the detector, whose model lies in its package, once a process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def repeated(hashes: Iterable[str]) -> dict[str, int]:
    """Return how often each body that came from more than one URL came, the most frequent ones first."""
    counts = Counter(hashes)
    often = sorted((item for item in counts.items() if item[1] > 1), key=lambda item: (-item[1], item[0]))
    return dict(often[:MOST_REPEATED])


def placeholders(num_urls: Mapping[str, int], min_urls: int | None) -> frozenset[str]:
    """Return the content hashes seen under at least `min_urls` URLs of the whole set; None quarantines nothing."""
    return frozenset(sha256 for sha256, number in num_urls.items() if min_urls and number >= min_urls)
