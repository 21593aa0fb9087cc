"""robots.txt by RFC 9309: groups, longest match, wildcards, encodings; a hostile text costs bounded time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.fetching.robots_txt import MAX_RULES, RobotsTxt, Rule

USAGE = ("train-ai=n",)


def refusal(text: str, target: str) -> str | None:
    return RobotsTxt.parse(text.encode(), "corgi").refusal(target, USAGE)


@pytest.mark.parametrize(
    ("rules", "target", "is_refused"),
    [
        ("Disallow: /", "/a.jpg", True),
        ("Disallow:", "/a.jpg", False),
        ("Disallow: /private", "/private.jpg", True),
        ("Disallow: /private/", "/private.jpg", False),
        ("Disallow: /a\nAllow: /a/b", "/a/b/c.jpg", False),
        ("Allow: /a\nDisallow: /a/b", "/a/b/c.jpg", True),
        ("Allow: /a\nDisallow: /a", "/a", False),
        ("Disallow: /*.jpg$", "/x/y.jpg", True),
        ("Disallow: /*.jpg$", "/x/y.jpg?size=1", False),
        ("Disallow: /*.jpg", "/x/y.jpg?size=1", True),
        ("Disallow: /a*b*c", "/aXXbYYcZZ", True),
        ("Disallow: /a*b*c", "/acb", False),
        ("Disallow: /a$", "/a", True),
        ("Disallow: /a$", "/ab", False),
        ("Disallow: /*a$", "/aXa", True),
        ("Disallow: /ab*b$", "/ab", False),
        ("Disallow: *.gif", "/x.gif", True),
        ("Disallow: /caf%C3%A9", "/café", True),
        ("Disallow: /café", "/caf%c3%a9", True),
        ("Disallow: /%7Euser", "/~user", True),
        ("Disallow: /a%2Fb", "/a/b", False),
        ("Disallow: /x?y=", "/x?y=1", True),
        ("Disallow: / # everything", "/a", True),
        ("Disallow: /", "/robots.txt", False),
        ("DISALLOW : /", "/a", True),
        ("Crawl-delay: 10\nSitemap: /x\nDisallow: /", "/a", True),
    ],
)
def test_the_longest_match_decides(rules: str, target: str, is_refused: bool) -> None:
    assert (refusal(f"User-agent: *\n{rules}\n", target) is not None) == is_refused


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("", False),
        ("Disallow: /", False),
        ("User-agent: other\nDisallow: /", False),
        ("User-agent: CORGI\nDisallow: /", True),
        ("User-agent: corgi/1.0\nDisallow: /", True),
        ("User-agent: corgi\nDisallow:\nUser-agent: *\nDisallow: /", False),
        ("User-agent: *\nDisallow: /\nUser-agent: corgi\nAllow: /", False),
        ("User-agent: other\nUser-agent: corgi\nDisallow: /", True),
        ("User-agent: corgi\nAllow: /\nUser-agent: x\nAllow: /\nUser-agent: corgi\nDisallow: /a.jpg", True),
        ("\ufeffUser-agent: *\r\nDisallow: /\r\n", True),
        ("User-agent: *\rDisallow: /\r", True),
        ("User-agent: corgi\n\nDisallow: /", True),
        ("<html>User-agent: *\nDisallow: /</html>", False),
        ("User-agent: *\nContent-Usage: train-ai=n", True),
        ("User-agent: *\nContent-Usage: / train-ai=n\nContent-Usage: /a train-ai=y", False),
        ("User-agent: *\nContent-Usage: /b train-ai=n", False),
    ],
)
def test_our_group_or_everyones(text: str, is_refused: bool) -> None:
    assert (refusal(text, "/a.jpg") is not None) == is_refused


@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_text_is_read(text: bytes, path: str) -> None:
    RobotsTxt.parse(b"user-agent: *\n" + text, "corgi").refusal(f"/{path}", USAGE)


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12), st.booleans())
def test_wildcards_match_as_a_regular_expression_does(pattern: str, target: str, is_anchored: bool) -> None:
    import re

    expression = ".*".join(map(re.escape, pattern.split("*"))) + (r"\Z" if is_anchored else "")
    rule = Rule("disallow", f"{pattern}$" if is_anchored else pattern)
    assert rule.matches(target) == (re.match(expression, target) is not None)


def test_a_hostile_text_costs_bounded_time() -> None:
    bombs = [
        "User-agent: *\n" + "\n".join(f"Disallow: /{'*a' * 30}{number}" for number in range(20_000)),
        "User-agent: *\n" + "Disallow: /" + "*a" * 200_000 + "$",
        "User-agent: *\n" * 30_000,
    ]
    started = time.process_time()
    for bomb in bombs:
        rules = RobotsTxt.parse(bomb.encode(), "corgi")
        assert len(rules.rules) <= MAX_RULES
        rules.refusal("/" + "a" * 8000, USAGE)
    assert time.process_time() - started < 5


def test_only_a_text_without_any_rule_for_us_is_empty():
    assert RobotsTxt().is_empty
    assert RobotsTxt.parse(b"User-agent: other\nDisallow: /\n", "corgi").is_empty
    assert not RobotsTxt.parse(b"User-agent: *\nDisallow: /a\n", "corgi").is_empty
    assert not RobotsTxt.parse(b"User-agent: *\nContent-Usage: train-ai=n\n", "corgi").is_empty
