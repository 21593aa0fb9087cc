"""Lines of a text: whatever ends them, however the stream is cut, bounded, UTF-8 or one line of error."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.settings.errors import InputError
from corgi.sources import text
from corgi.sources.text import filled_lines, lines

PIECES = st.lists(
    st.sampled_from(["a", "é", "\U0001f98a", " ", "\t", "\n", "\r", "\r\n", "\u2028", "\x0b", "\x1c", "\x85"])
)


def refused(path) -> str:
    with pytest.raises(InputError) as found:
        list(lines(str(path)))
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 4096])
@given(pieces=PIECES)
@settings(max_examples=60)
def test_lines_are_those_of_python_whatever_the_chunks(tmp_path_factory, chunk_bytes, pieces):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes("".join(pieces).encode())
    with path.open(newline="", encoding="utf-8") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "CHUNK_BYTES", chunk_bytes)
        assert list(lines(str(path))) == list(file)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_are_left_out_and_a_mark_of_utf_8_too(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(
        codecs.BOM_UTF8 + end.join(["one", "", " \t", "  two ", "three"]).encode()
    )
    assert list(filled_lines(str(tmp_path / "a.txt"))) == ["one", "two", "three"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_and_32_are_named(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("http://a.example/1\n".encode(encoding))
    assert f"it is {encoding[:6].upper()}, not UTF-8" in refused(path)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_marks_of_other_byte_orders_are_known(tmp_path, mark):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + b"\0h")
    assert "iconv -f UTF-" in refused(path)


@pytest.mark.parametrize("before", [0, 1, 5000])
def test_a_line_that_is_not_utf_8_is_named_by_its_number(tmp_path, monkeypatch, before):
    monkeypatch.setattr(text, "CHUNK_BYTES", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n" * before + b"caf\xe9\nfine\n")
    assert f"line {before + 1} is not UTF-8" in refused(path)


def test_a_line_that_is_too_long_is_named_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "CHUNK_BYTES", 100)
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n" * 30 + b"x" * 2000)
    assert "line 31 is longer" in refused(path)
