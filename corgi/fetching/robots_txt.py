"""robots.txt by RFC 9309, with the Content-Usage lines of the IETF's AIPREF draft. No network access.

The text is untrusted input: only a bounded part is read, and matching a path takes time linear in its length.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from corgi.fetching.robots import refusing_usage

MAX_TEXT_BYTES = 500 * 1024
MAX_RULES = 5_000
_RULES = frozenset({"allow", "disallow", "content-usage"})
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


@dataclass(frozen=True)
class Rule:
    """One line of a group: its directive for the paths that its pattern matches."""

    kind: str
    pattern: str
    usage: str = ""

    def matches(self, target: str) -> bool:
        """Return whether the pattern matches a path from its start; `*` matches any text, and a final `$` the end."""
        pattern, is_anchored = self.pattern, self.pattern.endswith("$")
        if is_anchored:
            pattern = pattern[:-1]
        first, *others = pattern.split("*")
        if not target.startswith(first):
            return False
        if is_anchored and not others:
            return target == first
        offset = len(first)
        last = others.pop() if is_anchored else ""
        for literal in others:
            found = target.find(literal, offset)
            if found < 0:
                return False
            offset = found + len(literal)
        return len(target) - len(last) >= offset and target.endswith(last)


@dataclass(frozen=True)
class RobotsTxt:
    """The lines of one site's robots.txt that apply to one fetcher, the most specific first."""

    rules: tuple[Rule, ...] = ()
    usages: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: bytes, product: str) -> "RobotsTxt":
        """Return the rules of a text for a product: its own groups, or those of `*` if it has none."""
        ours: list[Rule] = []
        everyone: list[Rule] = []
        is_named = False
        for agents, rule in _lines(text[:MAX_TEXT_BYTES]):
            is_named = is_named or product in agents
            if rule is None:
                continue
            for name, rules in ((product, ours), ("*", everyone)):
                if name in agents and len(rules) < MAX_RULES:
                    rules.append(rule)
        chosen = sorted(
            ours if is_named else everyone, key=lambda rule: (-len(rule.pattern), rule.kind != "allow")
        )
        return cls(
            rules=tuple(rule for rule in chosen if rule.kind != "content-usage"),
            usages=tuple(rule for rule in chosen if rule.kind == "content-usage"),
        )

    @property
    def is_empty(self) -> bool:
        """Return whether there is no rule at all, as on most sites."""
        return not self.rules and not self.usages

    @property
    def weight(self) -> int:
        """Return its size in a cache, in rules."""
        return 1 + len(self.rules) + len(self.usages)

    def refusal(self, target: str, disallowed_usage: Collection[str]) -> str | None:
        """Return why a path with its query may not be fetched, or None when it may."""
        if target == "/robots.txt":
            return None
        target = _normal(target).replace("*", "%2A").replace("$", "%24")
        rule = next((rule for rule in self.rules if rule.matches(target)), None)
        if rule is not None and rule.kind == "disallow":
            return "robots.txt disallows"
        usage = next((rule for rule in self.usages if rule.matches(target)), None)
        refused = usage and refusing_usage([usage.usage], disallowed_usage)
        return f"robots.txt Content-Usage {refused}" if refused else None


def _lines(text: bytes) -> Iterator[tuple[frozenset[str], Rule | None]]:
    """Yield each user-agent line with its group so far, and each rule with its group."""
    agents: frozenset[str] = frozenset()
    is_open = False
    for line in re.split(r"[\r\n]+", text.decode("utf-8-sig", "replace")):
        name, colon, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        name = name.lower()
        if not colon:
            continue
        if name == "user-agent":
            product = value.partition("/")[0].strip().lower()
            agents = agents | {product} if is_open else frozenset({product})
            is_open = True
            yield agents, None
        elif name in _RULES:
            is_open = False
            rule = _rule(name, value)
            if rule is not None:
                yield agents, rule


def _rule(name: str, value: str) -> Rule | None:
    if name != "content-usage":
        return Rule(name, _normal(value)) if value else None
    path, _, preferences = value.partition(" ")
    if not path.startswith("/"):
        path, preferences = "/", value
    return Rule(name, _normal(path), preferences)


def _normal(text: str) -> str:
    """Return a path with every character in a normal form, so that equivalent paths compare equal."""

    def one_spelling(found: re.Match[str]) -> str:
        letter = chr(int(found[1], 16))
        return letter if letter in _UNRESERVED else found[0].upper()

    escaped = (
        text if text.isascii() else "".join(c if c.isascii() else quote(c, errors="replace") for c in text)
    )
    return _ESCAPE.sub(one_spelling, escaped)
