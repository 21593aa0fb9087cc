"""The demo's list of URLs: every picture with its captions, and the open web's faults among them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.demo.openmoji import CREDIT, Picture, stable_hash
from corgi.demo.raster import extension, file_name, write_whole
from corgi.settings.errors import StorageError

HOST = "openmoji.test"
SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("caption_kind", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
    ],
    metadata={"credit": CREDIT},
)
"""Columns of the list; the images' licence requires the credit to be passed on with them."""

Fault = Literal["busy", "copy", "gone", "cut", "page", "noai", "uncaptioned"]
FAULT_SHARE: dict[Fault, float] = {
    "busy": 0.005,  # the picture's own URL, 503 at the first visit of each run of the site
    "uncaptioned": 0.005,  # the picture's own URL, once, without a caption
    "copy": 0.005,  # a further URL with the same bytes
    "gone": 0.005,  # a further URL, 404
    "cut": 0.005,  # a further URL, the first half of a WebP file
    "page": 0.005,  # a further URL, HTML with status 200
    "noai": 0.005,  # a further URL, the picture under X-Robots-Tag: noai
}
"""Share of the pictures each fault strikes, at least one of each; the sum is 3.5 %."""
FURTHER_URL_FAULTS: tuple[Fault, ...] = ("copy", "gone", "cut", "page", "noai")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the list; `caption_kind` is "full" or "coarse"."""

    url: str
    caption: str | None
    caption_kind: str
    group: str


def rows(pictures: Sequence[Picture]) -> list[Row]:
    """List one row per URL and caption, shuffled by hash of the URL.

    Identities depend on the pictures alone: every URL names the same host, whichever port the site is on.
    """
    struck = {fault: struck_pictures(pictures, fault) for fault in FAULT_SHARE}
    listed: list[Row] = []
    for picture in pictures:
        own = "busy" if picture.codepoints in struck["busy"] else "pictures"
        if picture.codepoints in struck["uncaptioned"]:
            listed.append(Row(url(own, picture), None, "full", picture.concept))
        else:
            listed.extend(_captioned_rows(url(own, picture), picture))
        listed.extend(
            Row(url(fault, picture), picture.caption, "full", picture.concept)
            for fault in FURTHER_URL_FAULTS
            if picture.codepoints in struck[fault]
        )
    return sorted(listed, key=lambda row: stable_hash(row.url))


def struck_pictures(pictures: Sequence[Picture], fault: Fault) -> frozenset[str]:
    """Choose by hash the ids that a fault strikes.

    Half a WebP file is broken for every decoder, half a JPEG only for strict ones: "cut" strikes WebP files.
    """
    ids = [one.codepoints for one in pictures if fault != "cut" or extension(one.codepoints) == "webp"]
    count = max(1, round(FAULT_SHARE[fault] * len(pictures)))
    return frozenset(sorted(ids, key=lambda codepoints: stable_hash(f"{fault} {codepoints}"))[:count])


def url(kind: str, picture: Picture) -> str:
    """Name a picture on the site; `kind` is "pictures" or a fault."""
    return f"http://{HOST}/{kind}/{file_name(picture.codepoints)}"


def write_url_list(path: Path, pictures: Sequence[Picture]) -> int:
    """Write the list as Parquet, the same bytes for the same pictures, and return its number of rows."""
    listed = rows(pictures)
    columns = zip(*map(astuple, listed), strict=True)
    names = [field.name for field in fields(Row)]
    table = pa.table(dict(zip(names, columns, strict=True)), schema=SCHEMA)
    body = io.BytesIO()
    pq.write_table(table, body)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, body.getvalue())
    except OSError as error:
        raise StorageError(
            f"cannot write the URL list {path}: {error.strerror}; nothing else was touched; make room and run again"
        ) from error
    return len(listed)


def _captioned_rows(address: str, picture: Picture) -> Iterator[Row]:
    for caption in (picture.caption, *picture.aliases):
        yield Row(address, caption, "full", picture.concept)
    if picture.coarse is not None:
        yield Row(address, picture.coarse, "coarse", picture.concept)
