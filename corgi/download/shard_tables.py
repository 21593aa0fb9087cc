"""The three tables of a download shard, from the outcomes of its planned rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa

from corgi.download.planned import Outcome
from corgi.download.rules import PRESETS, broken_rule, repeated
from corgi.imaging.decode import StoredImage
from corgi.settings.data import FilterSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.rejection import Rejection
from corgi.tables.schema import CAPTIONS, IMAGES, LEDGER, Reason

_CHUNK_ROWS = 500
KEPT, REJECTED = "kept", "rejected"
IMAGE_FIELDS = (
    "image",
    "width",
    "height",
    "original_width",
    "original_height",
    "sha256",
    "phash",
    "mime",
    "animated",
)
"""The columns of the images table that are fields of StoredImage, under the same names."""


class PlanRow(TypedDict):
    """A row of the plan: one URL, with every row of the lists that names it."""

    uid: str
    url: str
    group: str
    split: str
    captions: list["PlannedCaption"] | None
    additional: list[tuple[str, str | None]] | None
    sources: list[str]
    rows: list[int]


class PlannedCaption(TypedDict):
    """A caption as the plan stores it."""

    caption: str
    kind: str


class CaptionRow(PlannedCaption):
    """A row of the captions."""

    uid: str
    ordinal: int
    weight: float


class LedgerRow(TypedDict):
    """A row of the ledger: the outcome of one row of a list."""

    source: str
    row: int
    uid: str
    status: str
    reason: Reason | None
    detail: str | None
    http_status: int | None
    bytes: int | None


@dataclass(frozen=True)
class ShardTables:
    """The tables of one shard, each sorted by its key, with their row counts and the facts for the report."""

    images: pa.Table
    captions: pa.Table
    ledger: pa.Table
    rows: RowCounts
    facts: dict[str, object]


def shard_tables(
    plan: pa.Table, outcomes: Sequence[Outcome], rules: FilterSettings = PRESETS["none"]
) -> ShardTables:
    """Return the tables for a plan's shard and the outcomes of its rows, which are in the plan's order.

    There is one ledger row per row of the list; rows of the same URL share its outcome. Captions that break a rule
    are left out and counted; the others keep their ordinals.
    """
    rows = sorted(zip(plan.to_pylist(), outcomes, strict=True), key=lambda row: row[0]["uid"])
    ledger = sorted(
        (entry for row in rows for entry in _ledger(*row)), key=lambda entry: (entry["source"], entry["row"])
    )
    images = [_image(row, outcome) for row, outcome in rows if isinstance(outcome, StoredImage)]
    listed = [entry for row, outcome in rows if isinstance(outcome, StoredImage) for entry in _captions(row)]
    broken = [broken_rule(entry["caption"], rules) for entry in listed]
    captions = [entry for entry, rule in zip(listed, broken, strict=True) if rule is None]
    left_out = Counter(rule.setting for rule in broken if rule is not None)
    return ShardTables(
        images=_images_table(images),
        captions=pa.Table.from_pylist(captions, schema=CAPTIONS),
        ledger=pa.Table.from_pylist(ledger, schema=LEDGER),
        rows=_counts(ledger),
        facts={**_facts([outcome for _, outcome in rows]), "captions_left_out": _sorted(left_out)},
    )


def _images_table(images: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return the table in chunks: a single buffer of all images would be copied each time it grows."""
    starts = range(0, len(images), _CHUNK_ROWS)
    chunks = [pa.Table.from_pylist(images[start : start + _CHUNK_ROWS], schema=IMAGES) for start in starts]
    return pa.concat_tables([IMAGES.empty_table(), *chunks])


def _ledger(row: PlanRow, outcome: Outcome) -> list[LedgerRow]:
    rejection = outcome if isinstance(outcome, Rejection) else None
    return [
        {
            "source": source,
            "row": number,
            "uid": row["uid"],
            "status": REJECTED if rejection else KEPT,
            "reason": rejection.reason if rejection else None,
            "detail": (rejection.detail or None) if rejection else None,
            "http_status": outcome.http_status,
            "bytes": outcome.num_bytes,
        }
        for source, number in zip(row["sources"], row["rows"], strict=True)
    ]


def _image(row: PlanRow, image: StoredImage) -> dict[str, object]:
    named = {name: row[name] for name in ("uid", "url", "group", "split", "additional")}
    return {**named, **{name: getattr(image, name) for name in IMAGE_FIELDS}}


def _captions(row: PlanRow) -> list[CaptionRow]:
    return [
        {
            "uid": row["uid"],
            "ordinal": ordinal,
            "caption": entry["caption"],
            "kind": entry["kind"],
            "weight": 1.0,
        }
        for ordinal, entry in enumerate(row["captions"] or [])
    ]


def _counts(ledger: Sequence[LedgerRow]) -> RowCounts:
    reasons = Counter(entry["reason"] for entry in ledger if entry["reason"] is not None)
    kept = sum(entry["status"] == KEPT for entry in ledger)
    return RowCounts(rows_in=len(ledger), kept=kept, rejected=dict(sorted(reasons.items())))


def _facts(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return a shard's facts for the report; they count URLs, not list rows."""
    images = [outcome for outcome in outcomes if isinstance(outcome, StoredImage)]
    rejections = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    return {
        "planned": len(outcomes),
        "kept": len(images),
        "rejected": _sorted(Counter(str(rejection.reason) for rejection in rejections)),
        "bytes": sum(outcome.num_bytes or 0 for outcome in outcomes),
        "stored_bytes": sum(len(image.image) for image in images),
        "formats": _sorted(Counter(image.format for image in images)),
        "animated": sum(bool(image.animated) for image in images),
        "repeated_sha256": repeated(image.sha256 for image in images),
        "original_shorter_side_up_to_px": _sorted(Counter(_octave(image) for image in images)),
    }


def _octave(image: StoredImage) -> str:
    side = min(image.original_width, image.original_height)
    return f"{1 << max(0, side - 1).bit_length():05d}"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
