"""The columns that the rules read from some consecutive shards: a few dozen bytes per row, without images or vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, UInt64

from corgi.curation.exact import Digests, digests
from corgi.curation.perceptual import phash_values
from corgi.curation.precedence import SPLITS, ranks
from corgi.settings.clip import CurateSettings, ScoreRule
from corgi.tables.arrow import pc
from corgi.tables.store import Store

PRESETS = {
    "clip_score_top_30": ScoreRule(score="similarity", top_share=0.3),
    "laion_b32_028": ScoreRule(score="similarity", min=0.28),
}


@dataclass(frozen=True)
class Wanted:
    """Which columns the rules of a recipe read."""

    content: bool
    phash: bool
    domain: bool
    scores: tuple[str, ...]

    @classmethod
    def of(cls, settings: CurateSettings) -> "Wanted":
        """Return the columns that the settings need."""
        return cls(
            content=settings.exact_duplicates or settings.placeholder_min_urls is not None,
            phash=settings.perceptual_distance is not None,
            domain=settings.max_domain_share is not None,
            scores=tuple(sorted({rule.score for rule in rules(settings)})),
        )


@dataclass(frozen=True)
class BlockPlan:
    """The shards of a block: the number of its first row over all shards, and each shard's row count and manifest paths."""

    first_row: int
    counts: tuple[int, ...]
    features: tuple[str, ...]
    embed: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Return the number of rows of all its shards."""
        return sum(self.counts)


@dataclass(frozen=True)
class Block:
    """The rows of a block. `split` is an index into SPLITS; `scores` are NaN for rows without a score; `domain` is -1 without a URL.

    `position` is each row's index in its shard of features. A column that no rule reads contains no values.
    """

    plan: BlockPlan
    position: Int[np.ndarray, "n"]
    split: Int[np.ndarray, "n"]
    digest: Digests
    has_digest: Bool[np.ndarray, "n"]
    phash: UInt64[np.ndarray, "n"]
    has_phash: Bool[np.ndarray, "n"]
    domain: Int[np.ndarray, "n"]
    domains: pa.Array
    scores: dict[str, Float[np.ndarray, "n"]]

    @property
    def rows(self) -> Int[np.ndarray, "n"]:
        """Return the rows' numbers over all shards."""
        return np.arange(self.plan.first_row, self.plan.first_row + len(self.split))

    @property
    def rank(self) -> Int[np.ndarray, "n"]:
        """Return the rows' ranks in order of precedence."""
        return ranks(self.split, self.rows)


def rules(settings: CurateSettings) -> list[ScoreRule]:
    """Return the score rules: the preset's, the similarity threshold, and the others."""
    found = [PRESETS[settings.preset]] if settings.preset else []
    if settings.min_similarity is not None:
        found.append(ScoreRule(score="similarity", min=settings.min_similarity))
    return [*found, *settings.scores]


def block_plans(
    features: Sequence[str], embed: Sequence[str], counts: Sequence[int], block_rows: int
) -> list[BlockPlan]:
    """Return blocks of consecutive shards, each with at most `block_rows` rows or with only one shard."""
    plans: list[BlockPlan] = []
    start = first = held = 0
    for shard, count in enumerate(counts):
        if shard > start and held + count > block_rows:
            plans.append(_plan(features, embed, counts, start, shard, first))
            start, first, held = shard, first + held, 0
        held += count
    if len(counts):
        plans.append(_plan(features, embed, counts, start, len(counts), first))
    return plans


def _plan(
    features: Sequence[str], embed: Sequence[str], counts: Sequence[int], start: int, stop: int, first: int
) -> BlockPlan:
    return BlockPlan(first, tuple(counts[start:stop]), tuple(features[start:stop]), tuple(embed[start:stop]))


def load_block(root: str, plan: BlockPlan, wanted: Wanted) -> Block:
    """Read a block's shards, one at a time."""
    store = Store(root)
    pairs = zip(plan.features, plan.embed, strict=True)
    table = pa.concat_tables([_shard(store, features, embed, wanted) for features, embed in pairs])
    domain: Any = table["domain"].combine_chunks().dictionary_encode()
    columns = {name: table[name].to_numpy() for name in ("digest_0", "digest_1", *wanted.scores)}
    return Block(
        plan=plan,
        position=table["position"].to_numpy(),
        split=table["split"].to_numpy(),
        digest=np.stack([columns["digest_0"], columns["digest_1"]], axis=1),
        has_digest=table["has_digest"].to_numpy(),
        phash=table["phash"].to_numpy(),
        has_phash=table["has_phash"].to_numpy(),
        domain=domain.indices.fill_null(-1).to_numpy().astype(np.int32),
        domains=domain.dictionary,
        scores={name: columns[name] for name in wanted.scores},
    )


def _shard(store: Store, features: str, embed: str, wanted: Wanted) -> pa.Table:
    """Return the columns of a shard's embedded rows; texts other than the domain are converted to numbers."""
    rows = store.read(store.read_shard(embed), "image_embeddings", ["uid", *wanted.scores])
    asked = {"sha256": wanted.content, "phash": wanted.phash, "domain": wanted.domain}
    names = [name for name, is_asked in asked.items() if is_asked]
    held = store.read(store.read_shard(features), "features", ["uid", "split", *names])
    position = pc.index_in(rows["uid"], value_set=held["uid"].combine_chunks())
    if position.null_count:
        raise AssertionError(f"{embed} embeds rows that {features} does not have")
    held = held.take(position)
    nulls = pa.nulls(rows.num_rows, pa.string())
    text = {name: held[name] if is_asked else nulls for name, is_asked in asked.items()}
    digest, has_digest = digests(text["sha256"].to_pylist())
    phash, has_phash = phash_values(text["phash"].to_pylist())
    split = pc.index_in(held["split"], value_set=pa.array([str(split) for split in SPLITS]))
    scores = {
        name: pc.fill_null(rows[name].cast(pa.float32()), pa.scalar(np.nan, pa.float32()))
        for name in wanted.scores
    }
    return pa.table(
        {
            "position": position.cast(pa.int32()),
            "split": split.cast(pa.int8()),
            "digest_0": digest[:, 0],
            "digest_1": digest[:, 1],
            "has_digest": has_digest,
            "phash": phash,
            "has_phash": has_phash,
            "domain": text["domain"],
            **scores,
        }
    )
