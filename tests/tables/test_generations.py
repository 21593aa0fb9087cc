"""Numbered manifests: each takes a number above all that are there, and only their own file names count."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corgi.storage.roots import open_storage
from corgi.tables.generations import generation, newest, publish


@given(st.integers(0, 10**9))
def test_law_a_manifests_name_holds_its_number(number: int) -> None:
    assert generation(f"manifest-{number}.json") == number


@given(st.text(max_size=30))
def test_law_no_other_name_has_one(name: str) -> None:
    number = generation(name)
    assert number is None or name == f"manifest-{number}.json" or name.startswith("manifest-0")


def test_what_is_nearly_a_manifest_is_none() -> None:
    names = ["manifest-.json", "manifest--1.json", "manifest-1.json.part", "a-manifest-1.json", "manifest-1"]
    assert [generation(name) for name in names] == [None] * len(names)


def test_each_publication_is_the_newest_and_no_number_is_used_twice(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    assert newest(storage, "stage/key") is None
    names = [publish(storage, "stage/key", text) for text in ("first", "second")]
    (tmp_path / "stage" / "key" / "manifest-7.json").write_text("by another process")
    (tmp_path / "stage" / "key" / "manifest-9.json.part").write_text("no manifest")
    names.append(publish(storage, "stage/key", "third"))
    assert names == [f"stage/key/manifest-{number}.json" for number in (0, 1, 8)]
    assert newest(storage, "stage/key") == names[-1]
    assert [storage.read(name) for name in names] == [b"first", b"second", b"third"]
