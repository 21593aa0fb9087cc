"""The X-Robots-Tag header: which of its directives speak to this fetcher."""

from collections.abc import Collection, Iterator, Sequence

_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_TO_EVERY_LEARNER = frozenset({"noai", "noimageai", "noml"})
"""Directives about machine learning, which are taken to mean everyone whatever bot they name."""


def refusing_directive(headers: Sequence[str], user_agent: str, disallowed: Collection[str]) -> str | None:
    """Return the first directive of the header's values that refuses us, or None.

    `bot: directive, ...` speaks to that bot until the next bot is named; it refuses us when it names us, names `*`, or is
    about machine learning.
    """
    us = user_agent.partition("/")[0].strip().lower()
    refused = {directive.strip().lower() for directive in disallowed}
    for header in headers:
        for bot, directive in _directives(header):
            if directive in refused and (bot in (None, "*", us) or directive in _TO_EVERY_LEARNER):
                return directive
    return None


def _directives(header: str) -> Iterator[tuple[str | None, str]]:
    bot: str | None = None
    for part in header.split(","):
        name, colon, rest = (text.strip().lower() for text in part.partition(":"))
        if colon and name not in _WITH_VALUES:
            bot, name = name, rest
        yield bot, name
