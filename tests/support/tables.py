"""A small committed run made by hand: pictures, captions, ledger, embeddings, selection, without any stage's code."""

import hashlib
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from corgi.settings.section import digest
from corgi.tables import schema
from corgi.tables.manifest import RowCounts, ShardEntry, ShardManifest, StageManifest
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import ShardTask, Store

TOWER = "own"
DIM = 8


@dataclass(frozen=True)
class Picture:
    """One row of the list and what became of it; `reason` is why download rejected it."""

    url: str
    captions: tuple[tuple[str, str], ...] = ()
    split: str = "train"
    reason: Reason | None = None
    size: tuple[int, int] = (64, 48)
    saved: tuple[tuple[str, str], ...] = ()
    """Further columns of the list that the plan kept, by name."""

    @property
    def uid(self) -> str:
        return hashlib.blake2b(self.url.encode(), digest_size=16).hexdigest()

    @property
    def group(self) -> str:
        return self.url


@dataclass
class Output:
    """What one shard of a stage holds."""

    rows: RowCounts
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def some_pictures(num: int = 12, num_rejected: int = 3) -> list[Picture]:
    """Return `num` pictures to keep and `num_rejected` that download rejects; every fourth is held out."""
    splits = ("train", "train", "val", "test")
    kept = [
        Picture(
            f"http://pictures.test/{index}.png",
            ((f"a picture number {index}", "full"), ("picture", "coarse")),
            splits[index % 4] if index % 4 < 2 or index % 8 < 4 else "train",
            size=(40 + 8 * (index % 5), 48),
        )
        for index in range(num)
    ]
    faults = (Reason.HTTP_STATUS, Reason.NOT_AN_IMAGE, Reason.OPTED_OUT)
    lost = [
        Picture(f"http://pictures.test/lost/{index}.png", (("lost", "full"),), reason=faults[index % 3])
        for index in range(num_rejected)
    ]
    return kept + lost


def commit_stage(
    run: Run,
    stage: str,
    outputs: dict[str, Output],
    inputs: Sequence[str] = (),
    seconds: float | None = None,
) -> StageManifest:
    """Commit the shards of a stage, close it and record it in the run."""
    shards = [_commit_shard(run, stage, shard, output) for shard, output in outputs.items()]
    return close_stage(run, stage, shards, inputs, seconds)


def close_stage(
    run: Run,
    stage: str,
    shards: Sequence[ShardManifest],
    inputs: Sequence[str] = (),
    seconds: float | None = None,
) -> StageManifest:
    """Close a stage over committed shards and record it in the run."""
    made_from = {name: run.stages()[name] for name in inputs}
    total = RowCounts(rows_in=0, kept=0)
    for shard in shards:
        total = total + shard.rows
    manifest = StageManifest(
        stage=stage,
        key=digest([stage, [shard.digest for shard in shards]]),
        version=1,
        code="c0de" * 8,
        commit="f00d" * 10,
        settings={},
        inputs={name: found.path for name, found in made_from.items()},
        shards=tuple(ShardEntry(shard=shard.shard, path=shard.path, digest=shard.digest) for shard in shards),
        rows=total,
        seconds=seconds,
    )
    manifest = run.store.close(run.store.indexed(manifest, [ListedShard.of(shard) for shard in shards]))
    run.record(stage, manifest)
    return manifest


def new_run(root: Path, name: str = "tiny", **recipe: Any) -> Run:
    """Return an empty run under a root folder."""
    run = Run(root / name, Store(root))
    run.note(name=name, recipe={"name": name, "seed": 7, **recipe}, code="c0de" * 8, commit="f00d" * 10)
    return run


def commit_plan(run: Run, pictures: Sequence[Picture], num_shards: int = 2) -> StageManifest:
    """Commit the plan: one row per picture, one list row per caption."""
    outputs = {}
    for shard, part in _shards(pictures, num_shards).items():
        rows = [_plan_row(p) for p in part]
        splits = Counter(p.split for p in part)
        listed = sum(max(1, len(p.captions)) for p in part)
        facts = {
            "urls": len(part),
            **{split: splits[split] for split in ("train", "val", "test")},
            "sources": [{"sha256": "5e" * 32, "path": "lists/tiny.parquet"}],
        }
        table = pa.Table.from_pylist(rows, schema=schema.PLAN)
        outputs[shard] = Output(RowCounts(rows_in=listed, kept=listed), {"plan": table}, facts=facts)
    return commit_stage(run, "plan", outputs)


def commit_download(
    run: Run, pictures: Sequence[Picture], num_shards: int = 2, tells_formats: bool = True
) -> StageManifest:
    """Commit images, captions and ledger; a ledger row per caption, at least one per picture."""
    outputs = {}
    for shard, part in _shards(pictures, num_shards).items():
        kept = [p for p in part if p.reason is None]
        ledger = [_ledger_row(p, row) for p in part for row in range(max(1, len(p.captions)))]
        rejected = Counter(Reason(row["reason"]) for row in ledger if row["reason"])
        counts = RowCounts(
            rows_in=len(ledger), kept=len(ledger) - sum(rejected.values()), rejected=dict(rejected)
        )
        tables = {
            "images": pa.Table.from_pylist([_image_row(p) for p in kept], schema=schema.IMAGES),
            "captions": pa.Table.from_pylist(
                [row for p in kept for row in _caption_rows(p)], schema=schema.CAPTIONS
            ),
            "ledger": pa.Table.from_pylist(ledger, schema=schema.LEDGER),
        }
        served = Counter(("JPEG", "PNG", "WEBP")[int(p.uid, 16) % 3] for p in kept)
        facts = {"formats": dict(sorted(served.items()))} if tells_formats else {}
        outputs[shard] = Output(counts, tables, facts=facts)
    return commit_stage(run, "download", outputs, ["plan"])


def commit_embed(run: Run, pictures: Sequence[Picture], num_shards: int = 2, dim: int = DIM) -> StageManifest:
    """Commit unit vectors of one tower: a picture's by its uid, a caption's near it when full, far from it when coarse."""
    outputs = {}
    for shard, part in _shards([p for p in pictures if p.reason is None], num_shards).items():
        images = [
            {
                "uid": p.uid,
                "split": p.split,
                f"{TOWER}/image": vector(p.uid, dim),
                f"{TOWER}/image_norm": 1.0,
                "similarity": 0.5,
            }
            for p in part
        ]
        captions = [
            _caption_vector(p, ordinal, kind, dim)
            for p in part
            for ordinal, (_, kind) in enumerate(p.captions)
        ]
        tables = {
            "image_embeddings": pa.Table.from_pylist(images, schema=schema.image_embeddings({TOWER: dim})),
            "caption_embeddings": pa.Table.from_pylist(
                captions, schema=schema.caption_embeddings({TOWER: dim})
            ),
        }
        outputs[shard] = Output(RowCounts(rows_in=len(part), kept=len(part)), tables)
    return commit_stage(run, "embed", outputs, ["download"])


def commit_curate(
    run: Run,
    pictures: Sequence[Picture],
    dropped: dict[str, Reason],
    num_shards: int = 2,
    withheld: Collection[str] = (),
    counted: bool = True,
) -> StageManifest:
    """Commit the selection; `dropped` gives the reason by url, `withheld` the urls whose captions are not learned from.

    Without `counted` there are no counts by split, as in selections of 0.1.
    """
    outputs = {}
    for shard, part in _shards([p for p in pictures if p.reason is None], num_shards).items():
        rows = [
            {
                "uid": p.uid,
                "keep": p.url not in dropped,
                "reason": dropped.get(p.url),
                "captioned": False if p.url in withheld else None,
            }
            for p in part
        ]
        rejected = Counter(dropped[p.url] for p in part if p.url in dropped)
        counts = RowCounts(
            rows_in=len(part), kept=len(part) - sum(rejected.values()), rejected=dict(rejected)
        )
        facts = _counts_by_split(part, {*dropped}, withheld) if counted else {}
        tables = {"selection": pa.Table.from_pylist(rows, schema=schema.SELECTION)}
        outputs[shard] = Output(counts, tables, facts=facts)
    return commit_stage(run, "curate", outputs, ["download", "embed"])


def _counts_by_split(
    pictures: Sequence[Picture], dropped: Collection[str], withheld: Collection[str]
) -> dict[str, Any]:
    kept = [p for p in pictures if p.url not in dropped]
    learned = [p for p in kept if p.url not in withheld and any(kind == "full" for _, kind in p.captions)]
    counts = {
        split: {
            "images": sum(p.split == split for p in kept),
            "captioned": sum(p.split == split for p in learned),
        }
        for split in ("train", "val", "test")
    }
    return {"splits": counts}


def tiny_run(root: Path, pictures: Sequence[Picture] | None = None, num_shards: int = 2) -> Run:
    """Return a run that is complete up to curate, one picture dropped there as a duplicate."""
    chosen = some_pictures() if pictures is None else pictures
    run = new_run(root)
    commit_plan(run, chosen, num_shards)
    commit_download(run, chosen, num_shards)
    commit_embed(run, chosen, num_shards)
    first = next(p.url for p in chosen if p.reason is None)
    commit_curate(run, chosen, {first: Reason.EXACT_DUPLICATE}, num_shards)
    return run


def encoded(picture: Picture) -> bytes:
    """Return the picture's PNG: its own colours, chosen by its uid."""
    shades = bytes.fromhex(picture.uid)
    image = Image.new("RGB", picture.size, (shades[0], shades[1], shades[2]))
    width, height = picture.size
    ImageDraw.Draw(image).ellipse(
        (width // 4, height // 4, width * 3 // 4, height * 3 // 4), fill=(shades[3], shades[4], shades[5])
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png(width: int = 16, height: int = 16) -> bytes:
    """Return a grey PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def vector(name: str, dim: int) -> list[float]:
    """Return the unit vector that belongs to a name."""
    values = np.random.default_rng(int(digest(name)[:8], 16)).normal(size=dim)
    return (values / np.linalg.norm(values)).tolist()


def _commit_shard(run: Run, stage: str, shard: str, output: Output) -> ShardManifest:
    key = digest(
        [stage, shard, output.rows.model_dump(mode="json"), sorted(output.tables), str(output.facts)]
    )
    task = ShardTask(str(run.store.root.parent), stage, shard, key, 1, "c0de" * 8, output.settings)
    with run.store.attempt(task) as attempt:
        for name, table in output.tables.items():
            attempt.write_table(name, table)
        for name, (suffix, data) in output.files.items():
            attempt.write_bytes(name, suffix, data)
        return attempt.commit(output.rows, facts=output.facts)


def _shards(pictures: Sequence[Picture], num_shards: int) -> dict[str, list[Picture]]:
    """Return the pictures by shard, a range of the first hex digit, sorted by uid."""
    parts: dict[str, list[Picture]] = {f"{shard:05d}": [] for shard in range(num_shards)}
    for picture in sorted(pictures, key=lambda picture: picture.uid):
        parts[f"{int(picture.uid[0], 16) * num_shards // 16:05d}"].append(picture)
    return parts


def _plan_row(picture: Picture) -> dict[str, Any]:
    return {
        "uid": picture.uid,
        "url": picture.url,
        "group": picture.group,
        "split": picture.split,
        "captions": [{"caption": caption, "kind": kind} for caption, kind in picture.captions],
        "sources": ["5e" * 32] * max(1, len(picture.captions)),
        "rows": list(range(max(1, len(picture.captions)))),
    }


def _image_row(picture: Picture) -> dict[str, Any]:
    data = encoded(picture)
    width, height = picture.size
    names = {"uid": picture.uid, "url": picture.url, "group": picture.group, "split": picture.split}
    original = {"original_width": 4 * width, "original_height": 4 * height, "mime": "image/png"}
    content = {"sha256": hashlib.sha256(data).hexdigest(), "phash": "0" * 16}
    saved = {"additional": list(picture.saved) or None}
    return {**names, **original, **content, **saved, "image": data, "width": width, "height": height}


def _caption_rows(picture: Picture) -> list[dict[str, Any]]:
    return [
        {"uid": picture.uid, "ordinal": ordinal, "caption": caption, "kind": kind, "weight": 1.0}
        for ordinal, (caption, kind) in enumerate(picture.captions)
    ]


def _ledger_row(picture: Picture, row: int) -> dict[str, Any]:
    status = {Reason.HTTP_STATUS: 404}.get(picture.reason, 200) if picture.reason else 200
    outcome = {
        "status": "kept" if picture.reason is None else "rejected",
        "reason": picture.reason,
        "detail": None,
    }
    return {
        "source": "5e" * 32,
        "row": row,
        "uid": picture.uid,
        **outcome,
        "http_status": status,
        "bytes": 1000,
    }


def _caption_vector(picture: Picture, ordinal: int, kind: str, dim: int) -> dict[str, Any]:
    own = np.array(vector(picture.uid, dim)) * (2.0 if kind == "full" else 0.4) + np.array(
        vector(f"{picture.uid} {ordinal}", dim)
    )
    unit = own / np.linalg.norm(own)
    similarity = float(unit @ np.array(vector(picture.uid, dim)))
    return {
        "uid": picture.uid,
        "ordinal": ordinal,
        "kind": kind,
        "similarity": similarity,
        f"{TOWER}/text": unit.tolist(),
        f"{TOWER}/text_norm": 1.0,
    }
