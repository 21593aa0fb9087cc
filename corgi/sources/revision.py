"""Which lists version 0.2 reads otherwise than 0.1: their plans are made again, those of all other lists stay."""

import functools
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.settings.data import PlanSettings
from corgi.sources.rows import Columns
from corgi.storage.paths import CHUNK_BYTES, open_file, open_stream

REVISION = "0.2"
_OVERLAP_BYTES = len(b"Infinity") - 1


def revision(place: str, format: str, sha256: str, settings: PlanSettings) -> str:
    """Return what a plan's key holds of how a list is read: nothing where 0.1 read the same rows.

    Args:
        place: path or URI of the list.
        format: what it is.
        sha256: of its bytes; a text is looked through once per process and content.
        settings: which of its columns are read, and how.

    """
    if format in ("parquet", "pictures"):
        is_other = _has_float_cells(place, settings)
    elif settings.quoting is None:
        is_other = _is_read_otherwise(place, format, sha256)
    else:  # the setting itself is in the key
        is_other = False
    return REVISION if is_other else ""


def _has_float_cells(place: str, settings: PlanSettings) -> bool:
    """Return whether NaN may stand where 0.1 read the word `nan`; in additional columns the word did no harm."""
    with open_file(place) as handle, pq.ParquetFile(handle) as file:
        schema = file.schema_arrow
    kinds = [field.type for field in schema if field.name in Columns.of(settings).named.values()]
    return any(map(pa.types.is_floating, kinds))


@functools.lru_cache(maxsize=65_536)
def _is_read_otherwise(place: str, format: str, sha256: str) -> bool:
    if format == "csv":  # an odd one is never closed: 0.1 lost the rows behind it, 0.2 refuses the list
        return sum(chunk.count(b'"') for chunk in _chunks(place)) % 2 == 1
    return format in _READ_OTHERWISE and any(map(_READ_OTHERWISE[format], _overlapping(_chunks(place))))


def _opens_with_a_mark(block: bytes) -> bool:
    """Return whether a cell of a TSV opens with a quotation mark, which is text now."""
    return b'"' in block and any(end + b'"' in block for end in (b"\t", b"\n", b"\r"))


def _holds_a_constant(block: bytes) -> bool:
    """Return whether JSON may hold NaN or an infinity, which are no words any more."""
    return b"NaN" in block or b"Infinity" in block


def _goes_on_behind_the_url(block: bytes) -> bool:
    """Return whether a tab or a lone CR stands in a line, which both end a URL now."""
    return b"\t" in block or (b"\r" in block and re.search(rb"\r[^\n]", block) is not None)


_READ_OTHERWISE = {"tsv": _opens_with_a_mark, "jsonl": _holds_a_constant, "txt": _goes_on_behind_the_url}


def _overlapping(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks with the last bytes of those before them, the first with a line end."""
    before = b"\n"
    for chunk in chunks:
        yield before + chunk
        before = (before + chunk)[-_OVERLAP_BYTES:]


def _chunks(place: str) -> Iterator[bytes]:
    with open_stream(place) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
