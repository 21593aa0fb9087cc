"""The demo's list of URLs: every picture with its captions, mixed with faults that occur on the open web."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.demo.pictures import Picture, stable_hash
from corgi.demo.raster import extension, file_name, write_whole
from corgi.settings.errors import StorageError

HOST = "emoji.test"
WHOLE_CONCEPTS = 3
"""One in this many concepts is one group with all its styles; for the others each style is its own group."""

Fault = Literal["busy", "copy", "gone", "cut", "page", "noai", "uncaptioned"]
FAULT_SHARE: dict[Fault, float] = {
    "busy": 0.005,  # the picture's own URL, 503 at the first request in each run of the site
    "uncaptioned": 0.005,  # the picture's own URL, listed once, without a caption
    "copy": 0.005,  # an additional URL with the same bytes
    "gone": 0.005,  # an additional URL, 404
    "cut": 0.005,  # an additional URL, the first half of a WebP file
    "page": 0.005,  # an additional URL, HTML with status 200
    "noai": 0.005,  # an additional URL, the picture with X-Robots-Tag: noai
}
"""Share of the pictures that have each fault, at least one picture each; the sum is 3.5 %."""
FURTHER_URL_FAULTS: tuple[Fault, ...] = ("copy", "gone", "cut", "page", "noai")


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of one row of the list. `caption_kind` is "full" or "coarse"; the licences require the `credit`."""

    url: str
    caption: str | None
    caption_kind: str
    group: str
    concept: str
    style: str
    credit: str


COLUMNS = tuple(field.name for field in fields(Row))


def rows(pictures: Sequence[Picture]) -> list[Row]:
    """Return one row per URL and caption, shuffled by hash of the URL.

    URLs depend only on the pictures: every URL names the same host, whatever the site's port.
    """
    struck = {fault: struck_pictures(pictures, fault) for fault in FAULT_SHARE}
    listed: list[Row] = []
    for picture in pictures:
        own = "busy" if picture.id in struck["busy"] else "pictures"
        if picture.id in struck["uncaptioned"]:
            listed.append(_row(url(own, picture), None, "full", picture))
        else:
            listed.extend(_captioned_rows(url(own, picture), picture))
        listed.extend(
            _row(url(fault, picture), styled(picture, picture.caption), "full", picture)
            for fault in FURTHER_URL_FAULTS
            if picture.id in struck[fault]
        )
    return sorted(listed, key=lambda row: stable_hash(row.url))


def group(picture: Picture) -> str:
    """Return the name of the group of rows that share the picture's split.

    A split by (concept, style) holds out pictures whose concept is trained on in another style; a split by concept holds out
    concepts that are not trained on in any style. A list has both kinds of groups, chosen by hash of the concept.
    """
    if stable_hash(f"whole {picture.concept}") % WHOLE_CONCEPTS == 0:
        return picture.concept
    return styled(picture, picture.concept)


def styled(picture: Picture, name: str) -> str:
    """Return a name with the picture's style: "fox, Twemoji style"."""
    return f"{name}, {picture.style.name} style"


def struck_pictures(pictures: Sequence[Picture], fault: Fault) -> frozenset[str]:
    """Choose by hash the ids of the pictures that have a fault.

    Every decoder rejects half a WebP file, but only strict ones half a JPEG, so "cut" is only used for WebP files.
    """
    ids = [one.id for one in pictures if fault != "cut" or extension(one.id) == "webp"]
    count = max(1, round(FAULT_SHARE[fault] * len(pictures)))
    return frozenset(sorted(ids, key=lambda identity: stable_hash(f"{fault} {identity}"))[:count])


def url(kind: str, picture: Picture) -> str:
    """Return a picture's URL on the site; `kind` is "pictures" or a fault."""
    return f"http://{HOST}/{kind}/{file_name(picture.id)}"


def write_url_list(path: Path, pictures: Sequence[Picture], credit: str) -> int:
    """Write the list as Parquet, the same bytes for the same pictures, and return its number of rows."""
    listed = rows(pictures)
    cells = zip(*[astuple(row) for row in listed], strict=True)
    columns = dict(zip(COLUMNS, cells, strict=True))
    schema = pa.schema(
        [pa.field(name, pa.string(), nullable=name == "caption") for name in COLUMNS],
        metadata={"credit": credit},
    )
    table = pa.table(columns, schema=schema)
    body = io.BytesIO()
    pq.write_table(table, body)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, body.getvalue())
    except OSError as error:
        raise StorageError(
            f"cannot write the URL list {path}: {error.strerror}; nothing else was changed; make room and run again"
        ) from error
    return len(listed)


def _captioned_rows(address: str, picture: Picture) -> Iterator[Row]:
    """Yield the full captions, which name the style, then the coarse ones: the shared word first, then the bare name."""
    for name in (picture.caption, *picture.aliases):
        yield _row(address, styled(picture, name), "full", picture)
    for word in dict.fromkeys((picture.coarse, picture.caption)):
        if word is not None:
            yield _row(address, word, "coarse", picture)


def _row(address: str, caption: str | None, kind: str, picture: Picture) -> Row:
    return Row(
        address, caption, kind, group(picture), picture.concept, picture.style.name, picture.style.credit
    )
