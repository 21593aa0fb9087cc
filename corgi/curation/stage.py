"""The curate stage: what needs the whole set. It drops rows with a reason and never moves them between splits."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, UInt64

from corgi.curation.dedup import (
    SemanticRule,
    Vectors,
    exact_copies,
    perceptual_copies,
    phash_values,
    semantic_copies,
)
from corgi.curation.domains import capped, registered_domains
from corgi.download.rules import placeholders
from corgi.flow import screen
from corgi.flow.context import Context
from corgi.settings.clip import CurateSettings, ScoreRule
from corgi.settings.errors import InputError
from corgi.tables.embedded import rows_of, vectors_of
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import SELECTION, Reason, Split
from corgi.tables.split_counts import as_facts, split_counts
from corgi.tables.store import ShardTask, Store

PRESETS = {
    "clip_score_top_30": ScoreRule(score="similarity", top_share=0.3),
    "laion_b32_028": ScoreRule(score="similarity", min=0.28),
}
_SPLITS = (Split.TEST, Split.VAL, Split.TRAIN)
"""In order of precedence: of two copies the one in test stays, then that in val."""
_TRAIN = _SPLITS.index(Split.TRAIN)
_TOP_DOMAINS = 10


def run(context: Context) -> list[ShardTask]:
    """Commit one `selection` table per shard: every embedded picture, kept or dropped with a reason."""
    whole = {name: context.inputs[name].digest for name in ("download", "embed")}
    embedded = context.shards("embed")
    tasks = [context.task(shard.shard, whole, {"embed": [shard]}) for shard in embedded]
    pending = {task.shard for task in context.pending(tasks)}
    if not pending:
        return tasks
    rows = load_rows(context.store, context.shards("download"), embedded, context.recipe.curate)
    verdict = judge(rows, context.recipe.curate)
    start = 0
    with screen.bar("curate", len(tasks), "shard") as bar:
        for num_made, (task, shard) in enumerate(zip(tasks, embedded, strict=True), 1):
            part = slice(start, start + rows.counts[num_made - 1])
            if task.shard in pending:
                counts, table = _selected(rows, verdict, part)
                commit(context.store, task, shard, table, counts, verdict.facts)
            start = part.stop
            bar.reach(num_made)
    return tasks


@dataclass(frozen=True)
class Rows:
    """What the rules look at, all shards one after the other: a hundred bytes per row, no picture and no vector.

    `split` counts from test; `scores` hold NaN if a row has none; `domain` is -1 if there is no url.
    """

    counts: Sequence[int]
    uid: np.ndarray
    split: Int[np.ndarray, "n"]
    sha256: UInt64[np.ndarray, "n 2"]
    phash: UInt64[np.ndarray, "n"]
    has_phash: Bool[np.ndarray, "n"]
    domain: Int[np.ndarray, "n"]
    domains: Sequence[str]
    scores: dict[str, Float[np.ndarray, "n"]]
    vectors: Vectors

    @property
    def rank(self) -> Int[np.ndarray, "n"]:
        """Return each row's rank in the order of precedence: by split, then by uid."""
        found = np.empty(len(self.uid), np.int64)
        found[np.lexsort((self.uid, self.split))] = np.arange(len(self.uid))
        return found


@dataclass
class Verdict:
    """Each row's reason (index into `reasons`, -1 for kept), whether its captions count, and what was found on the way."""

    reason: Int[np.ndarray, "n"]
    captioned: Bool[np.ndarray, "n"]
    facts: dict[str, Any] = field(default_factory=dict)
    reasons = tuple(Reason)

    @property
    def kept(self) -> Bool[np.ndarray, "n"]:
        """Return which rows are not dropped so far."""
        return self.reason < 0

    def drop(self, rows: Bool[np.ndarray, "n"], reason: Reason) -> None:
        """Give a reason to the rows that have none yet."""
        self.reason[rows & self.kept] = self.reasons.index(reason)


def judge(rows: Rows, settings: CurateSettings) -> Verdict:
    """Apply score rules, then duplicates, then the cap, each to the rows that are left.

    Raises:
        InputError: a rule names a score that is not stored, or the domain cap cannot be kept.

    """
    verdict = Verdict(np.full(len(rows.uid), -1, np.int16), captioned(rows, settings))
    if settings.placeholder_min_urls is not None:
        digests = [digest.tobytes().hex() for digest in rows.sha256]
        frequent = placeholders(Counter(digests), settings.placeholder_min_urls)
        verdict.drop(np.array([digest in frequent for digest in digests], bool), Reason.PLACEHOLDER)
    for rule in rules(settings):
        _apply(rule, rows, verdict)
    _drop_copies(rows, settings, verdict)
    if settings.max_domain_share is not None:
        left = np.flatnonzero(verdict.kept)
        gone, cap = capped(rows.domain[left], rows.rank[left], settings.max_domain_share)
        dropped = np.zeros(len(rows.uid), bool)
        dropped[left[gone]] = True
        verdict.drop(dropped, Reason.DOMAIN_CAP)
        verdict.facts |= {"rows_a_domain": cap, "largest_domains": _largest(rows, verdict)}
    return verdict


def rules(settings: CurateSettings) -> list[ScoreRule]:
    """Return the score rules: the preset's, the similarity threshold, and the others."""
    found = [PRESETS[settings.preset]] if settings.preset else []
    if settings.min_similarity is not None:
        found.append(ScoreRule(score="similarity", min=settings.min_similarity))
    return [*found, *settings.scores]


def captioned(rows: Rows, settings: CurateSettings) -> Bool[np.ndarray, "n"]:
    """Return which rows keep their captions: all held out, and a share of train chosen by hash(seed, uid)."""
    if settings.caption_share >= 1:
        return np.ones(len(rows.uid), bool)
    seed = settings.seed.to_bytes(4, "little")
    draws = np.frombuffer(
        b"".join(hashlib.blake2b(seed + uid, digest_size=8).digest() for uid in rows.uid.tolist()), "<u8"
    )
    return (rows.split != _TRAIN) | (draws < settings.caption_share * 2.0**64)


def threshold(rule: ScoreRule, values: Float[np.ndarray, "n"], split: Int[np.ndarray, "n"]) -> float:
    """Return the smallest score a rule keeps; a share is taken of the train rows that have the score."""
    lowest = -np.inf if rule.min is None else rule.min
    known = values[(split == _TRAIN) & ~np.isnan(values)]
    if rule.top_share is None or not len(known):
        return lowest
    number = max(1, int(np.floor(rule.top_share * len(known))))
    return max(lowest, float(np.partition(known, len(known) - number)[len(known) - number]))


def _apply(rule: ScoreRule, rows: Rows, verdict: Verdict) -> None:
    values = rows.scores[rule.score]
    lowest = threshold(rule, values, rows.split)
    highest = np.inf if rule.max is None else rule.max
    low = values < lowest if rule.top_share is not None else values < np.float32(lowest)
    reason = Reason.LOW_SIMILARITY if rule.score == "similarity" else Reason.LOW_SCORE
    verdict.drop(low | (values > highest), reason)
    if rule.top_share is not None:
        verdict.facts[f"{rule.score}_threshold"] = lowest


def _drop_copies(rows: Rows, settings: CurateSettings, verdict: Verdict) -> None:
    rank, across = rows.rank, settings.duplicates == "across_splits"
    if settings.exact_duplicates:
        left = np.flatnonzero(verdict.kept)
        gone = exact_copies(rows.sha256[left], rank[left])
        verdict.drop(_mask(rows, left[gone]), Reason.EXACT_DUPLICATE)
    if settings.perceptual_distance is not None:
        left = np.flatnonzero(verdict.kept & rows.has_phash)
        gone = perceptual_copies(
            rows.phash[left], rows.split[left], rank[left], settings.perceptual_distance, across
        )
        verdict.drop(_mask(rows, left[gone]), Reason.PERCEPTUAL_DUPLICATE)
    if settings.semantic_cosine is not None:
        rule = SemanticRule(settings.semantic_cosine, settings.semantic_cluster_rows, across, settings.seed)
        gone = semantic_copies(rows.vectors, verdict.kept, rows.split, rank, rule)
        verdict.drop(gone, Reason.SEMANTIC_DUPLICATE)


def _mask(rows: Rows, chosen: Int[np.ndarray, "m"]) -> Bool[np.ndarray, "n"]:
    mask = np.zeros(len(rows.uid), bool)
    mask[chosen] = True
    return mask


def _largest(rows: Rows, verdict: Verdict) -> dict[str, float]:
    """Return the shares of the kept rows that the largest domains hold."""
    kept = rows.domain[verdict.kept]
    counts = np.bincount(kept[kept >= 0], minlength=len(rows.domains))
    best = np.argsort(-counts, kind="stable")[:_TOP_DOMAINS]
    return {str(rows.domains[int(k)]): float(counts[k] / len(kept)) for k in best if counts[k]}


def load_rows(
    store: Store, images: Sequence[ShardManifest], embedded: Sequence[ShardManifest], settings: CurateSettings
) -> Rows:
    """Read what the rules look at from every shard.

    Raises:
        InputError: a rule names a score that the embeddings do not hold.

    """
    by_shard = {manifest.shard: manifest for manifest in images}
    scores = sorted({rule.score for rule in rules(settings)})
    parts = [_part(store, by_shard[shard.shard], shard, settings, scores) for shard in embedded]
    table = pa.concat_tables(parts).combine_chunks()
    domain = table["domain"].combine_chunks().dictionary_encode()
    phash, has_phash = phash_values(table["phash"].to_pylist())
    order = {split.value: rank for rank, split in enumerate(_SPLITS)}
    return Rows(
        counts=[part.num_rows for part in parts],
        uid=np.array(table["uid"].to_pylist(), dtype=np.bytes_),
        split=np.array([order[name] for name in table["split"].to_pylist()], np.int8),
        sha256=_digests(table["sha256"].to_pylist()),
        phash=phash,
        has_phash=has_phash,
        domain=np.asarray(domain.indices.fill_null(-1)).astype(np.int64),
        domains=domain.dictionary.to_pylist(),
        scores={name: np.asarray(table[name].cast(pa.float32()).fill_null(np.nan)) for name in scores},
        vectors=Vectors([part.num_rows for part in parts], lambda part: _vectors(store, embedded[part])),
    )


def _part(
    store: Store,
    images: ShardManifest,
    embedded: ShardManifest,
    settings: CurateSettings,
    scores: Sequence[str],
) -> pa.Table:
    """Return uid, split, scores, sha256, phash and domain of a shard's embedded pictures; what no rule needs is null."""
    held = pq.read_schema(store.path(embedded, "image_embeddings")).names
    for score in scores:
        if score not in held:
            known = [name for name in held if name == "similarity" or name.endswith("_score")]
            raise InputError(
                f"curate: the embeddings hold no score {score!r} (they hold {', '.join(known)}); nothing was changed; "
                "add the head to embed.heads or correct curate.scores"
            )
    rows = store.read(embedded, "image_embeddings", ["uid", *scores])
    by_content = settings.exact_duplicates or settings.placeholder_min_urls is not None
    wanted = {"split": True, "sha256": by_content}
    wanted |= {
        "phash": settings.perceptual_distance is not None,
        "url": settings.max_domain_share is not None,
    }
    names = [name for name, asked in wanted.items() if asked]
    found = store.read(images, "images", ["uid", *names])
    found = found.take(pa.array(rows_of(rows["uid"].to_pylist(), found["uid"].to_pylist())))
    nulls = pa.nulls(rows.num_rows, pa.string())
    columns = {name: found[name] if name in names else nulls for name in ("split", "sha256", "phash")}
    domain = pa.array(registered_domains(found["url"].to_pylist()), pa.string()) if "url" in names else nulls
    return pa.table({**{name: rows[name] for name in rows.column_names}, **columns, "domain": domain})


def _digests(texts: Sequence[str | None]) -> UInt64[np.ndarray, "n 2"]:
    """Return 128 bits per text; a row without one has bits of its own, so it equals no other."""
    named = (str(row) if text is None else f"s{text}" for row, text in enumerate(texts))
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in named)
    return np.frombuffer(joined, np.uint64).reshape(-1, 2)


def _vectors(store: Store, embedded: ShardManifest) -> Float[np.ndarray, "rows dim"]:
    return vectors_of(store.read(embedded, "image_embeddings"), "image")


def _selected(rows: Rows, verdict: Verdict, part: slice) -> tuple[RowCounts, pa.Table]:
    """Return a shard's counts by reason and its `selection` table."""
    reasons = [None if code < 0 else verdict.reasons[code] for code in verdict.reason[part].tolist()]
    table = pa.table(
        {
            "uid": [uid.decode() for uid in rows.uid[part].tolist()],
            "keep": [reason is None for reason in reasons],
            "reason": reasons,
            "captioned": verdict.captioned[part],
        },
        schema=SELECTION,
    )
    rejected = Counter(reason for reason in reasons if reason is not None)
    return RowCounts(rows_in=len(reasons), kept=reasons.count(None), rejected=dict(rejected)), table


def commit(
    store: Store,
    task: ShardTask,
    embedded: ShardManifest,
    selection: pa.Table,
    counts: RowCounts,
    facts: Mapping[str, object],
) -> None:
    """Commit a shard's `selection` with, as facts, the counts by split that every training starts from."""
    split = store.read(embedded, "image_embeddings", ["split"])["split"]
    captions = store.read(embedded, "caption_embeddings", ["uid", "kind"])
    with store.attempt(task) as attempt:
        attempt.write_table("selection", selection)
        attempt.commit(counts, {**facts, **as_facts(split_counts(split, selection, captions))})
