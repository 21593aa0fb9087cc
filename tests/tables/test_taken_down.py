"""What was taken down only grows, names rows by any of three names, and is believed only whole."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.settings.errors import StorageError
from corgi.storage.roots import open_storage
from corgi.tables.taken_down import TakenDown, read_taken_down, take_down

NAMES = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))
LISTS = st.builds(TakenDown, uids=NAMES, urls=NAMES, hashes=NAMES)


@given(LISTS, LISTS)
def test_law_a_union_names_what_either_names(a: TakenDown, b: TakenDown) -> None:
    assert a | b == b | a
    assert a | a == a
    for name in "abcde":
        for row in ((name, None, None), (None, name, None), (None, None, name)):
            assert (a | b).names(*row) == (a.names(*row) or b.names(*row))


def test_a_row_without_names_is_never_meant() -> None:
    assert not TakenDown(uids=frozenset("a"), urls=frozenset("a"), hashes=frozenset("a")).names(None)


def test_the_list_grows_and_what_adds_nothing_writes_nothing(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    assert read_taken_down(storage) == TakenDown()
    first, second = TakenDown(uids=frozenset("ab")), TakenDown(urls=frozenset("u"))
    assert take_down(storage, first) == first
    assert take_down(storage, second) == first | second
    assert take_down(storage, first) == read_taken_down(storage) == first | second
    assert len(list((tmp_path / "taken-down").iterdir())) == 2


@pytest.mark.parametrize("place", [0, 10, -2])
def test_a_damaged_list_is_one_line_and_never_an_empty_one(tmp_path: Path, place: int) -> None:
    storage = open_storage(str(tmp_path))
    take_down(storage, TakenDown(uids=frozenset({"ab"})))
    (path,) = (tmp_path / "taken-down").iterdir()
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)
    with pytest.raises(StorageError, match="is not the list that was written") as caught:
        read_taken_down(storage)
    assert "\n" not in str(caught.value)
