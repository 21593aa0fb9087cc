"""Who a picture is: known values, and laws that hold for any text."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.sources.identity import (
    canonical_url,
    canonical_urls,
    ranges_of,
    request_url,
    request_urls,
    split_of,
    splits_of,
    uid_bytes,
)
from corgi.tables.places import shard_of, uid

HOSTS = st.from_regex(r"[A-Za-z0-9-]{1,12}(\.[A-Za-z]{2,5}){1,2}", fullmatch=True)
URLS = st.builds(
    "{}://{}{}/{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "Https", "ftp"]),
    HOSTS,
    st.sampled_from(["", ":80", ":443", ":8080", ":"]),
    st.text(max_size=12),
    st.one_of(st.just(""), st.text(max_size=8).map("?{}".format)),
    st.one_of(st.just(""), st.text(max_size=8).map("#{}".format)),
)
ANY_TEXT = st.one_of(URLS, st.text(max_size=40), st.text(max_size=20).map("http://{}".format))


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        ("http://example.org:80/a", "http://example.org/a"),
        ("https://example.org:443/a", "https://example.org/a"),
        ("https://example.org:80/a", "https://example.org:80/a"),
        ("  http://example.org/a b\n", "http://example.org/a%20b"),
        ("http://example.org/a%20b", "http://example.org/a%20b"),
        ("http://example.org/a?b=c#d", "http://example.org/a?b=c"),
        ("http://example.org/Ä?q=ü", "http://example.org/%C3%84?q=%C3%BC"),
        ("http://example.org/A", "http://example.org/A"),
        ("http://User:Pass@Example.org/", "http://User:Pass@example.org/"),
        ("http://[::1]:80/a", "http://[::1]/a"),
        ("http://[::1]:81/a", "http://[::1]:81/a"),
        ("no url", "no url"),
        ("", ""),
        ("http://", "http://"),
        ("http://example.org:port/", "http://example.org:port/"),
        ("http://[broken/", "http://[broken/"),
        ("http://a/\ud800", "http://a/%ED%A0%80"),
    ],
)
def test_canonical_url(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://a.test/a|b.jpg?x[]={1}", "http://a.test/a|b.jpg?x[]={1}"),
        ("http://a.test/a%2Cb%2fc%7E.jpg?s=a%2Bb+c", "http://a.test/a%2Cb%2fc%7E.jpg?s=a%2Bb+c"),
        ("  http://a.test/a b\t", "http://a.test/a%20b"),
        ("HTTP://A.test:80/é?q=ü#part", "http://a.test/%C3%A9?q=%C3%BC"),
        ("http://a.test/a?#part", "http://a.test/a?"),
        ("http://a.test/x/../a//b\\c;", "http://a.test/x/../a//b\\c;"),
        ("http://a.test?q=/#", "http://a.test/?q=/"),
        ("no url?", "no url?"),
    ],
)
def test_a_request_is_the_listed_text_but_for_blanks_and_letters_outside_ascii(url, asked):
    assert request_url(url) == asked


@given(st.lists(ANY_TEXT))
def test_law_requests_of_many_urls_are_each_one_alone_and_name_the_same_row(urls):
    texts = pa.array([url.encode("utf-8", "replace").decode() for url in urls], pa.string())
    asked = request_urls(texts, canonical_urls(texts)).to_pylist()
    for url, found in zip(texts.to_pylist(), asked, strict=True):
        assert found == (request_url(url) if request_url(url) != canonical_url(url) else None)
        assert canonical_url(request_url(url)) == canonical_url(url)


def test_a_uid_is_the_same_for_ever():
    assert uid("http://example.org/a.jpg") == "46ae03482e1994093adf7ad4d2332f84"
    assert uid("") == "cae66941d9efbd404e4d88758ea67670"


@given(ANY_TEXT)
@settings(max_examples=300)
def test_canonicalisation_is_idempotent(text):
    once = canonical_url(text)
    assert canonical_url(once) == once


@given(URLS)
@settings(max_examples=100)
def test_the_fragment_and_the_case_of_scheme_and_host_do_not_matter(url):
    scheme, _, rest = url.partition("://")
    assert canonical_url(f"{scheme.swapcase()}://{rest}") == canonical_url(url)
    assert canonical_url(f"{canonical_url(url)}#{scheme}") == canonical_url(url)


@given(st.text(max_size=30), st.integers(1, 65_536))
def test_a_shard_is_a_range_of_leading_bits(text, num_shards):
    identity = uid(canonical_url(text))
    assert len(identity) == 32
    shard = shard_of(identity, num_shards)
    assert 0 <= shard < num_shards
    assert shard == int(identity[:16], 16) * num_shards // 2**64


def test_shards_are_ranges_in_uid_order_and_about_equal():
    uids = sorted(uid(str(n)) for n in range(4000))
    shards = [shard_of(identity, 16) for identity in uids]
    assert shards == sorted(shards)
    sizes = Counter(shards)
    assert len(sizes) == 16
    assert max(sizes.values()) < 1.4 * min(sizes.values())
    assert (shard_of("0" * 32, 7), shard_of("f" * 32, 7)) == (0, 6)


def test_splits_have_their_shares_and_depend_on_the_seed():
    groups = [f"group {n}" for n in range(20_000)]
    first = [split_of(group, 0, 0.05, 0.10) for group in groups]
    shares = {split: count / len(groups) for split, count in Counter(first).items()}
    assert shares == pytest.approx({"train": 0.85, "val": 0.05, "test": 0.10}, abs=0.01)
    second = [split_of(group, 1, 0.05, 0.10) for group in groups]
    assert first != second
    both_test = sum(a == b == "test" for a, b in zip(first, second, strict=True)) / len(groups)
    assert both_test == pytest.approx(0.01, abs=0.004)  # independent of one another


@given(st.text(max_size=20), st.integers(0, 2**32 - 1))
def test_no_share_no_split(group, seed):
    assert split_of(group, seed, 0.0, 0.0) == "train"


LIST_URLS = st.from_regex(
    r"https?://[a-zA-Z0-9._-]{1,9}(:80)?(/[a-z%~?#|:;@ !\\[\\]_A-Z0-9.-]{0,12}){0,2}", fullmatch=True
)


@given(st.lists(st.one_of(LIST_URLS, ANY_TEXT, st.none()), max_size=40))
@settings(max_examples=60)
def test_many_urls_at_once_are_each_one_alone(texts):
    clean = [text and text.encode("utf-8", "replace").decode() for text in texts]
    found = canonical_urls(pa.array(clean, pa.string())).to_pylist()
    assert found == [canonical_url(text or "") for text in clean]
    assert [one.hex() for one in uid_bytes([text.encode() for text in found])] == [
        uid(text) for text in found
    ]


def test_most_plain_urls_need_no_rewriting(monkeypatch):
    urls = [f"https://cdn.example-{n}.com/a/b_{n}.jpg?w=1&h={n}" for n in range(50)]
    monkeypatch.setattr(
        "corgi.sources.identity.canonical_url", lambda url: pytest.fail(f"{url} was taken apart")
    )
    assert canonical_urls(pa.array(urls)).to_pylist() == urls


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 65_536))
def test_ranges_of_many_are_exact(leading, num_ranges):
    found = ranges_of(np.array(leading, np.uint64), num_ranges).tolist()
    assert found == [value * num_ranges >> 64 for value in leading]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), st.integers(0, 2**32 - 1))
def test_splits_of_many_are_each_one_alone(groups, seed):
    for shares in ((0.05, 0.10), (0.3, 0.3), (0.0, 0.0), (0.0, 0.4)):
        found = splits_of([group.encode() for group in groups], seed, *shares)
        assert found == [split_of(group, seed, *shares) for group in groups]
