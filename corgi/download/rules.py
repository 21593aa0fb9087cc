"""The filter: rules about captions and images, and the well-known presets.

A caption that breaks a rule is left out; `keep_without_caption` decides whether an image without captions is kept. Rules
about images use the size and bytes of the original. Every rejection has one reason of the schema. Placeholders ("image not
found") are visible only over the whole set: a shard counts equal bodies here, and curate quarantines the frequent ones.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from corgi.settings.data import FilterSettings, PresetName
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

MOST_REPEATED = 100
"""Largest number of repeated bodies that a shard's facts name."""


PRESETS: Mapping[PresetName, FilterSettings] = {
    "none": FilterSettings(),
    "datacomp_basic": FilterSettings(
        min_caption_chars=6,
        min_caption_words=3,
        caption_languages=("en",),
        keep_without_caption=False,
        min_side=200,
        max_aspect_ratio=3.0,
    ),
    "laion": FilterSettings(min_caption_chars=5, keep_without_caption=False, min_bytes=5_000),
}
"""datacomp_basic: DataComp's basic filter (English, over 2 words and over 5 characters, 200 px, 3:1), with py3langid as
language detector. laion: LAION-400M's rules that need no score (5 characters, 5 kB)."""


class Original(NamedTuple):
    """What the rules know of an image: its size as received, px, and its number of bytes, None if unknown."""

    width: int
    height: int
    num_bytes: int | None


Subject = TypeVar("Subject", str, Original)


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """One rule about a caption or an image: the setting that enables it, its reason, and a function that checks a subject."""

    setting: str
    reason: Reason
    holds: Callable[[Subject, FilterSettings], bool]
    detail: str = ""
    """The detail in the ledger; the name of the setting unless given."""

    def breaks(self, subject: Subject, rules: FilterSettings) -> bool:
        """Return whether the rule is set and a caption or image does not satisfy it."""
        return bool(getattr(rules, self.setting)) and not self.holds(subject, rules)

    def rejection(self) -> Rejection:
        """Return the rejection for a subject that breaks the rule."""
        return Rejection(self.reason, self.detail or self.setting)


def has_enough_chars(caption: str, rules: FilterSettings) -> bool:
    """Return whether a caption has at least `min_caption_chars` characters, outer white space aside."""
    return len(caption.strip()) >= (rules.min_caption_chars or 0)


def has_not_too_many_chars(caption: str, rules: FilterSettings) -> bool:
    """Return whether a caption has at most `max_caption_chars` characters, outer white space aside."""
    return len(caption.strip()) <= (rules.max_caption_chars or math.inf)


def has_enough_words(caption: str, rules: FilterSettings) -> bool:
    """Return whether a caption has at least `min_caption_words` words between white space."""
    return len(caption.split()) >= (rules.min_caption_words or 0)


def has_not_too_many_words(caption: str, rules: FilterSettings) -> bool:
    """Return whether a caption has at most `max_caption_words` words between white space."""
    return len(caption.split()) <= (rules.max_caption_words or math.inf)


def is_in_a_wanted_language(caption: str, rules: FilterSettings) -> bool:
    """Return whether a caption is in one of `caption_languages`, with a probability of at least `min_language_score`."""
    language, score = language_of(caption)
    return language in (rules.caption_languages or ()) and score >= (rules.min_language_score or 0)


CAPTION_RULES: Sequence[Rule[str]] = (
    Rule("min_caption_chars", Reason.CAPTION_LENGTH, has_enough_chars),
    Rule("max_caption_chars", Reason.CAPTION_LENGTH, has_not_too_many_chars),
    Rule("min_caption_words", Reason.CAPTION_LENGTH, has_enough_words),
    Rule("max_caption_words", Reason.CAPTION_LENGTH, has_not_too_many_words),
    Rule("caption_languages", Reason.CAPTION_LANGUAGE, is_in_a_wanted_language),
)
"""In the order of checking: the first broken rule gives the reason. Language detection is the slowest and comes last."""


def has_enough_bytes(original: Original, rules: FilterSettings) -> bool:
    """Return whether an image was received in at least `min_bytes` bytes; unknown bytes pass."""
    return original.num_bytes is None or original.num_bytes >= (rules.min_bytes or 0)


def has_large_enough_sides(original: Original, rules: FilterSettings) -> bool:
    """Return whether the shorter side has at least `min_side` px."""
    return min(original.width, original.height) >= (rules.min_side or 0)


def is_not_too_thin(original: Original, rules: FilterSettings) -> bool:
    """Return whether the longer side is at most `max_aspect_ratio` times the shorter."""
    shorter, longer = sorted((original.width, original.height))
    return longer <= (rules.max_aspect_ratio or math.inf) * shorter


IMAGE_RULES: Sequence[Rule[Original]] = (
    Rule("min_bytes", Reason.TOO_FEW_BYTES, has_enough_bytes),
    Rule("min_side", Reason.TOO_SMALL, has_large_enough_sides),
    Rule("max_aspect_ratio", Reason.ASPECT_RATIO, is_not_too_thin, "max_aspect_ratio of the filter"),
)
"""In the order of checking."""


def rules_of(settings: FilterSettings) -> FilterSettings:
    """Return the preset's rules, overridden by the settings that are set; a rule set by neither is None."""
    own = settings.model_dump(exclude={"preset"}, exclude_none=True)
    return PRESETS[settings.preset].model_copy(update=own)


def broken_rule(caption: str, rules: FilterSettings) -> Rule[str] | None:
    """Return the first rule that a caption breaks, or None."""
    return next((rule for rule in CAPTION_RULES if rule.breaks(caption, rules)), None)


def check_captions(captions: Sequence[str], rules: FilterSettings) -> Rejection | None:
    """Return why a row with these captions is not requested, or None."""
    if rules.keep_without_caption in (None, True):
        return None
    broken = [broken_rule(caption, rules) for caption in captions]
    if None in broken:
        return None
    first = next((rule for rule in broken if rule is not None), None)
    return first.rejection() if first else Rejection(Reason.NO_CAPTION, "none in the list")


def check_image(width: int, height: int, num_bytes: int | None, rules: FilterSettings) -> Rejection | None:
    """Return why an image of this original size, px, and bytes is rejected, or None; unknown bytes pass."""
    original = Original(width, height, num_bytes)
    broken = next((rule for rule in IMAGE_RULES if rule.breaks(original, rules)), None)
    return broken.rejection() if broken else None


def language_of(text: str) -> tuple[str, float]:
    """Return a text's language, an ISO 639-1 code, and its probability among all languages known."""
    language, score = _identifier().classify(text)
    return str(language), float(score)


@functools.cache
def _identifier() -> "LanguageIdentifier":
    """Load the detector, whose model is stored in its package, once per process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def repeated(hashes: Iterable[str]) -> dict[str, int]:
    """Return the count of each body that came from more than one URL, the most frequent first."""
    counts = Counter(hashes)
    often = sorted((item for item in counts.items() if item[1] > 1), key=lambda item: (-item[1], item[0]))
    return dict(often[:MOST_REPEATED])


def placeholders(num_urls: Mapping[str, int], min_urls: int | None) -> frozenset[str]:
    """Return the content hashes seen under at least `min_urls` URLs of the whole set; None quarantines nothing."""
    return frozenset(sha256 for sha256, number in num_urls.items() if min_urls and number >= min_urls)
