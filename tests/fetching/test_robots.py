"""Refusals in headers: which of them speak to us."""

import pytest

from corgi.fetching.robots import refusing_directive, refusing_usage
from corgi.settings.data import DownloadSettings

SETTINGS = DownloadSettings()
US = "corgi/0.1 (contact)"


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([], None),
        (["all"], None),
        (["noai"], "noai"),
        (["NOIMAGEAI"], "noimageai"),
        (["all", "noindex"], "noindex"),
        (["nofollow, noimageindex"], "noimageindex"),
        (["none"], "none"),
        (["noml"], "noml"),
        (["corgi: none"], "none"),
        (["Corgi: nofollow, noindex"], "noindex"),
        (["*: noindex"], "noindex"),
        (["other: noindex"], None),
        (["other: noindex, corgi: noindex"], "noindex"),
        (["other: noai"], "noai"),
        (["other: noindex, noml"], "noml"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Sat, 25 Jun 2010 15:00:00 PST, noindex"], "noindex"),
        (["unavailable_after: 2010-06-25T15:00:00+00:00, none"], "none"),
        (["max-image-preview: large, max-snippet: -1"], None),
        (["max-snippet: 5, noindex"], "noindex"),
        ([",,: ,:,"], None),
    ],
)
def test_x_robots_tag(headers: list[str], refused: str | None) -> None:
    assert refusing_directive(headers, US, SETTINGS.disallowed_header_directives) == refused


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([], None),
        (["train-ai=n"], "train-ai=n"),
        (["Train-AI = N"], "train-ai=n"),
        (["search=y, train-ai=n"], "train-ai=n"),
        (["search=y", "bots=n"], "bots=n"),
        (["train-genai=n;exact"], "train-genai=n"),
        (["train-ai=y"], None),
        (["train-ai=n, train-ai=y"], None),
        (["search=n"], None),
        (["train-ai"], None),
        ([";;;=,=n"], None),
    ],
)
def test_content_usage(headers: list[str], refused: str | None) -> None:
    assert refusing_usage(headers, SETTINGS.disallowed_content_usage) == refused
