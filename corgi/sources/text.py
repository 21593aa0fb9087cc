"""Text files as lines: streamed, bounded in length, UTF-8, with any kind of line end."""

import codecs
import io
import string
from collections.abc import Iterator
from typing import Literal

from corgi.settings.errors import InputError
from corgi.storage.paths import CHUNK_BYTES, open_stream

MAX_LINE_BYTES = 16 * 2**20
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of other encodings than UTF-8, the longer ones first, because UTF-32's begins with UTF-16's."""


def lines(uri: str, errors: Literal["strict", "surrogateescape"] = "strict") -> Iterator[str]:
    r"""Yield a text's lines with their ends, which are \n, \r\n or a lone \r; UTF-8's byte order mark is removed.

    Args:
        uri: path or URI; it is decompressed if its ending says so.
        errors: what bytes that are not UTF-8 become: an error, or a lone surrogate each, so that only their line is affected.

    Raises:
        InputError: it is not UTF-8, its first bytes are those of another encoding, or a line is longer than MAX_LINE_BYTES.

    """
    rest, line_number = b"", 1
    with open_stream(uri) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if line_number == 1 and not rest:
                _check_encoding(chunk, uri)
                chunk = chunk.removeprefix(codecs.BOM_UTF8)
            block = rest + chunk
            # a \r at the end may be the first half of \r\n
            end = max(block.rfind(b"\n"), block.rfind(b"\r", 0, -1)) + 1
            whole, rest = _decoded_lines(block[:end], line_number, uri, errors), block[end:]
            if len(rest) > MAX_LINE_BYTES:
                raise InputError(
                    f"{uri} cannot be read as a list: line {line_number + len(whole)} is longer than {MAX_LINE_BYTES >> 20} MiB; "
                    "nothing was started; write one row per line"
                )
            line_number += len(whole)
            yield from whole
    yield from _decoded_lines(rest, line_number, uri, errors)


def filled_lines(uri: str) -> Iterator[str]:
    """Yield the lines of a text that are not blank, without line ends and surrounding white space.

    Raises:
        InputError: as for `lines`.

    """
    return filter(None, (line.strip(string.whitespace) for line in lines(uri)))


def _decoded_lines(block: bytes, first_line: int, uri: str, errors: str) -> list[str]:
    try:
        # StringIO, unlike str.splitlines, splits at these three line ends only
        return list(io.StringIO(block.decode(errors=errors), newline=""))
    except UnicodeDecodeError as error:
        before = len(list(io.StringIO(block[: error.start].decode() + "x", newline="")))
        raise InputError(
            f"{uri} cannot be read as a list: line {first_line + before - 1} is not UTF-8; nothing was started; store it as UTF-8 text"
        ) from error


def _check_encoding(start: bytes, uri: str) -> None:
    found = next((name for mark, name in _OTHER_MARKS.items() if start.startswith(mark)), None)
    if found is None and b"\0\0" in (
        start[0:4:2],
        start[1:4:2],
    ):  # characters of UTF-16 without a byte order mark
        found = "UTF-16"
    if found is not None:
        raise InputError(
            f"{uri} cannot be read as a list: it is {found}, not UTF-8; nothing was started; convert it: iconv -f {found} -t UTF-8"
        )
