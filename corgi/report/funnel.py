"""What a report shows of the pictures: the funnel, sizes, the contact sheet, and examples of rejected rows."""

import base64
import io
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from corgi.report import charts
from corgi.report.committed import Committed
from corgi.tables.schema import CREDIT_COLUMN, Reason, Split

NUM_THUMBNAILS = 48
NUM_EXAMPLES = 3
_THUMBNAIL_PX = 144
_BATCH_ROWS = 32


@dataclass(frozen=True)
class Passage:
    """A stage's row counts: rows in = kept + rejected."""

    stage: str
    unit: str
    rows_in: int
    kept: int
    rejected: int
    reasons: list[charts.Bar]


@dataclass(frozen=True)
class Funnel:
    """From the list to the used pictures; `splits` has the counts of each split by column."""

    steps: list[charts.Bar]
    passages: list[Passage]
    splits: dict[str, dict[str, int]]
    captions: dict[str, int]
    num_without_caption: int


@dataclass(frozen=True)
class Sizes:
    """Sizes and formats of the pictures as received and as stored."""

    original: charts.Chart | None
    received_as: list[charts.Bar]
    """Formats in which kept pictures were received, from the facts of download; empty if it did not fetch."""
    kept_as: list[charts.Bar]
    """MIME types in which they are stored."""
    received: str
    stored: str
    stored_each: str


@dataclass(frozen=True)
class Thumbnail:
    """A kept picture as a data URI, with its first full caption, and its credit if the list has one."""

    uri: str
    caption: str
    split: str
    credit: str = ""


@dataclass(frozen=True)
class Example:
    """A rejected row, with the detail that the ledger adds to the reason."""

    reason: str
    url: str
    detail: str


def funnel(run: Committed) -> Funnel:
    """Return the row counts of every stage that keeps and rejects rows, and the splits."""
    passages = [
        _passage(run, stage) for stage in ("plan", "download", "embed", "curate") if stage in run.stages
    ]
    steps: dict[str, int] = {}
    if "plan" in run.stages:
        steps["URLs in the list"] = run.num_rows("plan", "plan")
    if "download" in run.stages:
        steps["pictures downloaded"] = run.num_rows("download", "images")
    if "embed" in run.stages:
        steps["pictures embedded"] = run.num_rows("embed", "image_embeddings")
    if "curate" in run.stages:
        steps["pictures used"] = run.stages["curate"].rows.kept
    captions, num_without = _captions(run)
    return Funnel(charts.bars(steps), passages, _splits(run), captions, num_without)


def reasons(rejected: dict[Reason, int]) -> list[charts.Bar]:
    """Return the bars of rejected rows by reason, in plain words, most frequent first."""
    ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    return charts.bars({reason.text: count for reason, count in ordered if count})


def sizes(run: Committed) -> Sizes | None:
    """Return what is known of the pictures' sizes; None before any is kept, and for precomputed vectors, which have no sizes."""
    table = _images(run)
    if table is None:
        return None
    table = table.filter(pc.field("original_width").is_valid())
    if not table.num_rows:
        return None
    longer = [max(row.values()) for row in table.select(["original_width", "original_height"]).to_pylist()]
    kept_as = Counter(mime or "unknown" for mime in table["mime"].to_pylist())
    received, total = run.total("download", "bytes"), run.num_bytes("download", "images")
    return Sizes(
        charts.histogram("Longer side of the original", {"pictures": longer}, "px"),
        _most_frequent_first(run.counts("download", "formats")),
        _most_frequent_first(kept_as),
        charts.byte_size(received) if received else "",
        charts.byte_size(total),
        charts.byte_size(total / max(1, run.num_rows("download", "images"))),
    )


def _most_frequent_first(counts: Counter[str]) -> list[charts.Bar]:
    return charts.bars(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def contact_sheet(run: Committed) -> list[Thumbnail]:
    """Return thumbnails of the used pictures of lowest uid: a uid is a hash, so this is a random choice that never changes."""
    chosen: list[_UsedPicture] = []
    for row in _used_pictures(run):
        chosen.append(row)
        if len(chosen) == NUM_THUMBNAILS:
            break
    captions = _first_captions(run, [row.uid for row in chosen])
    return [
        Thumbnail(_thumbnail(row.encoded), captions.get(row.uid, ""), row.split, row.credit) for row in chosen
    ]


def thumbnails(run: Committed, uids: Collection[str]) -> dict[str, Thumbnail]:
    """Return thumbnails of some images of the sampled shards by uid."""
    captions, wanted = _first_captions(run, sorted(uids)), set(uids)
    by_uid: dict[str, Thumbnail] = {}
    for row in _used_pictures(run) if wanted else ():
        if row.uid in wanted:
            by_uid[row.uid] = Thumbnail(
                _thumbnail(row.encoded), captions.get(row.uid, ""), row.split, row.credit
            )
        if len(by_uid) == len(wanted):
            break
    return by_uid


def examples(run: Committed) -> list[Example]:
    """Return a few rejected rows of each reason, those with the lowest uids, from the ledger and the selection."""
    chosen: list[tuple[str, str, str]] = []
    seen: Counter[str] = Counter()
    for row in sorted({*_ledger_rejects(run), *_selection_rejects(run)}):
        seen[row[0]] += 1
        if seen[row[0]] <= NUM_EXAMPLES:
            chosen.append(row)
    urls = _urls(run, {uid for _, uid, _ in chosen})
    return [Example(Reason(reason).text, urls.get(uid, uid), detail) for reason, uid, detail in chosen]


def similarities(run: Committed) -> charts.Chart | None:
    """Return the histogram of caption-picture cosines, separately for full and coarse captions."""
    table = run.table("embed", "caption_embeddings", ["kind", "similarity"])
    if table is None:
        return None
    by_kind = {
        kind: table.filter(pc.field("kind") == kind)["similarity"].drop_null().to_pylist()
        for kind in ("full", "coarse")
    }
    return charts.histogram(
        "Cosine of caption and picture",
        {f"{kind} captions": cosines for kind, cosines in by_kind.items()},
        "",
    )


def data_uri(data: bytes, mime: str) -> str:
    """Return bytes as a data URI, so the page needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _images(run: Committed) -> pa.Table | None:
    return run.table(
        "download", "images", ["uid", "url", "original_width", "original_height", "mime", "split"]
    )


def _caption_table(run: Committed) -> pa.Table | None:
    return run.table("download", "captions", ["uid", "ordinal", "caption", "kind"])


def _selection(run: Committed) -> pa.Table | None:
    return run.table("curate", "selection", ["uid", "keep", "reason"])


def _passage(run: Committed, stage: str) -> Passage:
    rows = run.stages[stage].rows
    unit = "rows of the list" if stage in ("plan", "download") else "pictures"
    return Passage(stage, unit, rows.rows_in, rows.kept, sum(rows.rejected.values()), reasons(rows.rejected))


def _captions(run: Committed) -> tuple[dict[str, int], int]:
    """Return captions by kind, full first, and the number of pictures without any."""
    table, images = _caption_table(run), _images(run)
    if table is None or images is None:
        return {}, 0
    counts = Counter(table["kind"].to_pylist())
    num_without = images.num_rows - len(set(table["uid"].to_pylist()) & set(images["uid"].to_pylist()))
    return {kind: counts[kind] for kind in sorted(counts, reverse=True)}, num_without


def _splits(run: Committed) -> dict[str, dict[str, int]]:
    """Return the numbers of URLs planned, pictures downloaded and pictures used, by split, as far as they are known."""
    columns: dict[str, Counter[str]] = {}
    if "plan" in run.stages:
        columns["URLs"] = Counter({split: run.total("plan", split) for split in Split})
    images = _images(run)
    if images is not None:
        if not run.is_sampled:
            columns["downloaded"] = Counter(images["split"].to_pylist())
        used_by_split, used = run.totals("curate").splits, used_uids(run)
        if used_by_split is not None and used is not None:
            columns["used"] = used_by_split
        elif used is not None:
            pairs = zip(images["uid"].to_pylist(), images["split"].to_pylist(), strict=True)
            columns["used"] = Counter(split for uid, split in pairs if uid in used)
    return (
        {split: {name: counts[split] for name, counts in columns.items()} for split in Split}
        if columns
        else {}
    )


def used_uids(run: Committed) -> set[str] | None:
    """Return the uids of the images of the sampled shards that curate kept; None before it is complete."""
    selection = _selection(run)
    return None if selection is None else set(selection.filter(selection["keep"])["uid"].to_pylist())


class _UsedPicture(NamedTuple):
    uid: str
    encoded: bytes
    split: str
    credit: str


def _used_pictures(run: Committed) -> Iterator[_UsedPicture]:
    """Yield the used pictures by uid; tables are read only as far as the caller iterates."""
    used = used_uids(run)
    for shard in run.sampled("download", "images"):
        with pq.ParquetFile(run.store.path(shard, "images"), page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["uid", "image", "split", "additional"]):
                for row in batch.to_pylist():
                    if row["image"] is not None and (used is None or row["uid"] in used):
                        credit = dict(row["additional"] or ()).get(CREDIT_COLUMN)
                        yield _UsedPicture(row["uid"], row["image"], row["split"], credit or "")


def _first_captions(run: Committed, uids: list[str]) -> dict[str, str]:
    table = _caption_table(run)
    if table is None:
        return {}
    best: dict[str, tuple[bool, int, str]] = {}
    for row in table.filter(pc.field("uid").isin(pa.array(uids, pa.string()))).to_pylist():
        rank = (row["kind"] != "full", row["ordinal"], row["caption"])
        best[row["uid"]] = min(rank, best.get(row["uid"], rank))
    return {uid: caption for uid, (_, _, caption) in best.items()}


class _Rejected(TypedDict):
    """A rejected row of the ledger, or of the selection, which has neither detail nor HTTP status."""

    reason: str
    uid: str | None
    detail: str | None
    http_status: int | None


def _ledger_rejects(run: Committed) -> list[tuple[str, str, str]]:
    table = run.table("download", "ledger", ["uid", "reason", "detail", "http_status"])
    if table is None:
        return []
    return [(row["reason"], row["uid"] or "", _detail(row)) for row in _rejected(table)]


def _detail(row: _Rejected) -> str:
    if row["detail"]:
        return row["detail"]
    return f"HTTP {row['http_status']}" if row["reason"] == Reason.HTTP_STATUS and row["http_status"] else ""


def _selection_rejects(run: Committed) -> list[tuple[str, str, str]]:
    table = _selection(run)
    return [] if table is None else [(row["reason"], row["uid"] or "", "") for row in _rejected(table)]


def _rejected(table: pa.Table) -> "list[_Rejected]":
    return table.filter(pc.field("reason") != "").to_pylist()


def _urls(run: Committed, uids: set[str]) -> dict[str, str]:
    url_of: dict[str, str] = {}
    for table in (run.table("plan", "plan", ["uid", "url"]), _images(run)):
        if table is not None:
            rows = table.filter(pc.field("uid").isin(pa.array(sorted(uids), pa.string())))
            url_of.update(zip(rows["uid"].to_pylist(), rows["url"].to_pylist(), strict=True))
    return url_of


def _thumbnail(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (_THUMBNAIL_PX, _THUMBNAIL_PX))
        small = picture.convert("RGB")
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")
