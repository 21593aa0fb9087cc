"""Blocklists: what is listed is refused however it is spelt, nothing else is, and a wrong line is one line."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.planning.blocklist import Blocklist, HashBlocklist, digests
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.identity import canonical_url, uid_bytes
from corgi.tables.schema import Reason


def blocklist(tmp_path, **lists: str) -> Blocklist:
    named = {}
    for name, text in lists.items():
        path = tmp_path / f"{name}.txt"
        path.write_text(text)
        named[f"block_{name}"] = str(path)
    return Blocklist.of(PlanSettings.model_validate(named))


def reasons(found: Blocklist, *urls: str, known: list[list[str]] | None = None) -> list[Reason | None]:
    canonical = [canonical_url(url) for url in urls]
    names = np.array(uid_bytes([url.encode() for url in canonical]), "S16")
    return found.reasons(canonical, names, known or [[] for _ in urls])


def test_urls_are_compared_in_their_canonical_form(tmp_path):
    found = blocklist(tmp_path, urls="HTTP://A.example:80/x y#z\n\nhttp://b.example\n")
    urls = ("http://a.example/x%20y", "http://B.example/", "http://b.example/other", "http://a.example/x")
    assert reasons(found, *urls) == [Reason.BLOCKED_URL, Reason.BLOCKED_URL, None, None]


@pytest.mark.parametrize(
    ("host", "is_blocked"),
    [
        ("bad.example", True),
        ("BAD.example.", True),
        ("deep.sub.bad.example", True),
        ("notbad.example", False),
        ("bad.example.org", False),
        ("example", False),
        ("user@bad.example:8080", True),
    ],
)
def test_a_domain_blocks_itself_and_what_is_below(tmp_path, host, is_blocked):
    found = blocklist(tmp_path, domains="Bad.Example.\n")
    assert (reasons(found, f"http://{host}/a") == [Reason.BLOCKED_DOMAIN]) == is_blocked


def test_what_is_no_url_has_no_domain(tmp_path):
    found = blocklist(tmp_path, domains="bad.example")
    assert reasons(found, "", "bad.example", "http://[bad.example/") == [None] * 3


def test_hashes_known_from_the_list_are_settled_before_any_request(tmp_path):
    sha, md5 = hashlib.sha256(b"x").hexdigest(), hashlib.md5(b"x").hexdigest()  # noqa: S324
    found = blocklist(tmp_path, hashes=f"{sha.upper()}\nmd5:{md5}\nphash:{'0f' * 8}\n")
    known = [[f"sha256:{sha}"], [f"md5:{md5}"], [f"sha256:{'0' * 64}"], []]
    assert reasons(found, "http://a/1", "http://a/2", "http://a/3", "http://a/4", known=known) == [
        Reason.BLOCKED_HASH,
        Reason.BLOCKED_HASH,
        None,
        None,
    ]
    assert f"phash:{'0f' * 8}" in found.hashes
    assert found.hashes.kinds == {"sha256", "md5", "phash"}


@pytest.mark.parametrize("line", ["xyz", "sha1:" + "0" * 40, "0" * 63, "md5:" + "0" * 64, "sha256:"])
def test_a_line_that_is_no_hash_is_one_line(tmp_path, line):
    with pytest.raises(InputError, match="not a sha256, md5 or phash") as found:
        blocklist(tmp_path, hashes=f"{'0' * 64}\n{line}\n")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("setting", ["block_urls", "block_domains", "block_hashes"])
def test_a_list_that_is_missing_or_unreadable_is_one_line(tmp_path, setting):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    for name in ("none.txt", "bad.txt", "bad.parquet"):
        with pytest.raises(InputError, match=f"plan.{setting}") as found:
            Blocklist.of(PlanSettings.model_validate({setting: str(tmp_path / name)}))
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_ends_an_entry(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(end.join(["a.example", "", "b.example"]).encode())
    found = Blocklist.of(PlanSettings.model_validate({"block_domains": str(tmp_path / "a.txt")}))
    assert found.domains == {"a.example", "b.example"}


def test_parquet_and_text_say_the_same(tmp_path):
    lines = [f"http://a.example/{n}" for n in range(5)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    pq.write_table(pa.table({"url": lines}), tmp_path / "a.parquet")
    text, table = (
        Blocklist.of(PlanSettings.model_validate({"block_urls": str(tmp_path / name)}))
        for name in ("a.txt", "a.parquet")
    )
    assert text.urls.tolist() == table.urls.tolist()
    assert len(text.urls) == 5


def test_the_contents_and_the_setting_are_the_meaning_not_the_name(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("a.example")
    found = [
        digests(PlanSettings.model_validate({setting: str(tmp_path / name)}))
        for setting, name in (("block_urls", "a.txt"), ("block_urls", "b.txt"), ("block_domains", "a.txt"))
    ]
    assert found[0] == found[1] != found[2]


@given(st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=40), st.data())
@settings(max_examples=50)
def test_a_hash_is_held_when_and_only_when_it_is_listed(values, data):
    listed = data.draw(st.sets(st.sampled_from(values))) if values else set()
    found = HashBlocklist.of(f"sha256:{value}" for value in listed)
    assert found.holds([f"sha256:{value}" for value in values]).tolist() == [
        value in listed for value in values
    ]
