"""The hosts that the images come from, and the languages of their captions, in the sampled shards."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.compute as pc

from corgi.curation.domains import registered_domains
from corgi.download.rules import language_of
from corgi.report import charts
from corgi.report.committed import Committed

NUM_SHOWN = 12
NUM_GUESSED = 1000
"""Number of captions whose language is guessed."""
MIN_WORDS, MIN_SCORE = 4, 0.9
"""With fewer words or a lower score a guess is unreliable: many names are spelt alike in several languages."""
_OTHERS, _UNCLEAR = "all others", "too short or not clear"


@dataclass(frozen=True)
class Host:
    """A registered domain: its number of URLs in the plan, and of images kept from them."""

    domain: str
    urls: int
    kept: int

    @property
    def kept_percent(self) -> str:
        """Return the share of its URLs of which an image was kept."""
        return f"{charts.number(round(100 * self.kept / self.urls, 1))} %" if self.urls else ""


@dataclass(frozen=True)
class Origins:
    """The largest domains and the most frequent languages; all others are combined in one entry each."""

    hosts: list[Host]
    num_domains: int
    languages: list[charts.Bar]
    num_guessed: int


def origins(run: Committed) -> Origins | None:
    """Return what is known of hosts and languages; None if neither is known."""
    hosts, num_domains = _hosts(run)
    languages, num_guessed = _languages(run)
    return Origins(hosts, num_domains, languages, num_guessed) if hosts or languages else None


def _hosts(run: Committed) -> tuple[list[Host], int]:
    plan = run.table("plan", "plan", ["uid", "url"])
    if plan is None:
        return [], 0
    domains = registered_domains(plan["url"].to_pylist())
    images = run.table("download", "images", ["uid"])
    stored = set[str]() if images is None else set(images["uid"].to_pylist())
    urls, kept = Counter[str](), Counter[str]()
    for uid, domain in zip(plan["uid"].to_pylist(), domains, strict=True):
        if domain:
            urls[domain] += 1
            kept[domain] += uid in stored
    ordered = sorted(urls, key=lambda domain: (-urls[domain], domain))
    hosts = [Host(domain, urls[domain], kept[domain]) for domain in ordered[:NUM_SHOWN]]
    if rest := ordered[NUM_SHOWN:]:
        hosts.append(Host(_OTHERS, sum(urls[name] for name in rest), sum(kept[name] for name in rest)))
    return hosts, len(ordered)


def _languages(run: Committed) -> tuple[list[charts.Bar], int]:
    """Return the languages of the captions of the lowest uids; since a uid is a hash, that is a fair sample."""
    table = run.table("download", "captions", ["uid", "caption", "kind"])
    if table is None:
        return [], 0
    texts = table.filter(pc.field("kind") == "full").slice(0, NUM_GUESSED)["caption"].to_pylist()
    counts = Counter(map(_language, texts))
    ordered = sorted(counts, key=lambda code: (-counts[code], code))
    shown = {code: counts[code] for code in ordered[:NUM_SHOWN]}
    if rest := ordered[NUM_SHOWN:]:
        shown[_OTHERS] = sum(counts[code] for code in rest)
    return charts.bars(shown), len(texts)


def _language(text: str) -> str:
    """Return the language of a caption, if it is long enough and the guess is reliable."""
    if len(text.split()) < MIN_WORDS:
        return _UNCLEAR
    language, score = language_of(text)
    return language if score >= MIN_SCORE else _UNCLEAR
