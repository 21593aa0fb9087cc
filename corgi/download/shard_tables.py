"""What became of each planned URL, and the three tables a shard makes of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corgi.download.rules import PRESETS, broken_rule, repeated
from corgi.imaging.decode import Decoded
from corgi.settings.data import FilterSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import CAPTIONS, IMAGES, LEDGER, Reason

_CHUNK_ROWS = 500
KEPT, REJECTED = "kept", "rejected"
_IMAGE_FIELDS = (
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


@dataclass(frozen=True)
class Outcome:
    """A picture, or the reason there is none; status and bytes are None where the engine does not tell."""

    picture: Decoded | None = None
    reason: Reason | None = None
    detail: str = ""
    http_status: int | None = None
    num_bytes: int | None = None


@dataclass(frozen=True)
class ShardTables:
    """The tables of one shard, every one sorted by its key, with their row counts and the report's facts."""

    images: pa.Table
    captions: pa.Table
    ledger: pa.Table
    rows: RowCounts
    facts: dict[str, Any]


def shard_tables(
    plan: pa.Table, outcomes: Sequence[Outcome], rules: FilterSettings = PRESETS["none"]
) -> ShardTables:
    """Return the tables of a plan's shard and the outcomes of its rows, in the plan's order.

    A ledger row stands for one row of the list; list rows that name one URL share its outcome. Captions that break a rule
    are left out and counted; the others keep their ordinals.
    """
    rows = sorted(zip(plan.to_pylist(), outcomes, strict=True), key=lambda row: row[0]["uid"])
    ledger = sorted(
        (entry for row in rows for entry in _ledger(*row)), key=lambda entry: (entry["source"], entry["row"])
    )
    images = [_image(row, outcome.picture) for row, outcome in rows if outcome.picture is not None]
    listed = [entry for row, outcome in rows if outcome.picture is not None for entry in _captions(row)]
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


def _images_table(images: list[dict[str, Any]]) -> pa.Table:
    """Return the table in chunks: one buffer of all pictures would be copied each time it grows."""
    starts = range(0, len(images), _CHUNK_ROWS)
    chunks = [pa.Table.from_pylist(images[start : start + _CHUNK_ROWS], schema=IMAGES) for start in starts]
    return pa.concat_tables([IMAGES.empty_table(), *chunks])


def _ledger(row: dict[str, Any], outcome: Outcome) -> list[dict[str, Any]]:
    verdict = {
        "uid": row["uid"],
        "status": KEPT if outcome.picture is not None else REJECTED,
        "reason": outcome.reason,
        "detail": outcome.detail or None,
        "http_status": outcome.http_status,
        "bytes": outcome.num_bytes,
    }
    return [
        {"source": source, "row": number, **verdict}
        for source, number in zip(row["sources"], row["rows"], strict=True)
    ]


def _image(row: dict[str, Any], picture: Decoded) -> dict[str, Any]:
    named = {name: row[name] for name in ("uid", "url", "group", "split", "additional")}
    return {**named, **{name: getattr(picture, name) for name in _IMAGE_FIELDS}}


def _captions(row: dict[str, Any]) -> list[dict[str, Any]]:
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


def _counts(ledger: Sequence[dict[str, Any]]) -> RowCounts:
    reasons = Counter(entry["reason"] for entry in ledger if entry["status"] == REJECTED)
    kept = sum(entry["status"] == KEPT for entry in ledger)
    return RowCounts(rows_in=len(ledger), kept=kept, rejected=dict(sorted(reasons.items())))


def _facts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the report shows of a shard, counted in pictures, not in list rows."""
    pictures = [outcome.picture for outcome in outcomes if outcome.picture is not None]
    return {
        "planned": len(outcomes),
        "kept": len(pictures),
        "rejected": _sorted(Counter(str(outcome.reason) for outcome in outcomes if outcome.picture is None)),
        "bytes": sum(outcome.num_bytes or 0 for outcome in outcomes),
        "stored_bytes": sum(len(picture.image) for picture in pictures),
        "formats": _sorted(Counter(picture.format for picture in pictures)),
        "animated": sum(bool(picture.animated) for picture in pictures),
        "repeated_sha256": repeated(picture.sha256 for picture in pictures),
        "original_shorter_side_up_to_px": _sorted(Counter(_octave(picture) for picture in pictures)),
    }


def _octave(picture: Decoded) -> str:
    side = min(picture.original_width, picture.original_height)
    return f"{1 << max(0, side - 1).bit_length():05d}"


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
