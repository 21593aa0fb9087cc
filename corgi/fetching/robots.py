"""Opt-outs in response headers: `X-Robots-Tag` and `Content-Usage`, and which of them apply to this fetcher."""

import re
from collections.abc import Collection, Iterator, Sequence

_WITH_VALUES = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_BOT = re.compile(r"\*|[a-z_][a-z0-9_.*-]*")
_TO_EVERY_LEARNER = frozenset({"noai", "noimageai", "noml"})
"""Directives about machine learning, which apply to every fetcher, whichever bot they name."""


def product_of(user_agent: str) -> str:
    """Return the name by which sites address a user agent: the part before its version, in lower case."""
    return user_agent.partition("/")[0].strip().lower()


def refusing_directive(headers: Sequence[str], user_agent: str, disallowed: Collection[str]) -> str | None:
    """Return the first directive of the X-Robots-Tag values that forbids the use of the content, or None.

    `bot: directive, ...` applies to that bot until the next bot is named; it applies here if the bot is this user agent or `*`, or
    if the directive is about machine learning.
    """
    us = product_of(user_agent)
    refused = {directive.strip().lower() for directive in disallowed}
    for header in headers:
        for bot, directive in _directives(header):
            if directive in refused and (bot in (None, "*", us) or directive in _TO_EVERY_LEARNER):
                return directive
    return None


def refusing_usage(headers: Sequence[str], disallowed: Collection[str]) -> str | None:
    """Return the first preference of the Content-Usage values that forbids the use of the content, or None.

    The values are one structured dictionary (RFC 8941), in which the last value of a key counts.
    """
    stated: dict[str, str] = {}
    for member in ",".join(headers).split(","):
        key, equals, value = (text.strip().lower() for text in member.partition(";")[0].partition("="))
        if equals:
            stated[key] = value
    refused = {preference.strip().lower() for preference in disallowed}
    return next((f"{key}={value}" for key, value in stated.items() if f"{key}={value}" in refused), None)


def _directives(header: str) -> Iterator[tuple[str | None, str]]:
    bot: str | None = None
    for part in header.split(","):
        name, colon, rest = (text.strip().lower() for text in part.partition(":"))
        # a date after unavailable_after contains commas and colons, but names no bot
        if colon and name not in _WITH_VALUES and _BOT.fullmatch(name):
            bot, name = name, rest
        yield bot, name
