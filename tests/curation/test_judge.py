"""The verdict over blocks and parts is that of all rows in memory, row by row, whatever the number of either."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from corgi.curation.block import Block, block_plans
from corgi.curation.judge import judge
from corgi.curation.precedence import TRAIN
from corgi.curation.whole_set import WholeSet
from corgi.flow.tasks import Tasks
from corgi.settings.clip import CurateSettings
from corgi.settings.errors import InputError
from tests.support import whole_set_curation as in_memory

pytestmark = pytest.mark.usefixtures("in_process")
NUM_ROWS = 1200
RULES: dict[str, dict[str, Any]] = {
    "exact": {},
    "placeholders": {"placeholder_min_urls": 5, "exact_duplicates": False},
    "shares": {
        "scores": [
            {"score": "similarity", "top_share": 0.37},
            {"score": "a_score", "top_share": 0.9, "max": 0.9},
        ]
    },
    "bounds": {"min_similarity": 0.21, "scores": [{"score": "a_score", "min": 0.1}]},
    "preset": {"preset": "clip_score_top_30"},
    "perceptual": {"perceptual_distance": 4},
    "across": {"perceptual_distance": 6, "duplicates": "across_splits", "exact_duplicates": False},
    "domains": {"max_domain_share": 0.03},
    "all": {
        "preset": "laion_b32_028",
        "placeholder_min_urls": 4,
        "perceptual_distance": 3,
        "scores": [{"score": "a_score", "top_share": 0.8}],
        "max_domain_share": 0.05,
    },
}


def rows(seed: int, num_rows: int = NUM_ROWS) -> in_memory.Rows:
    """Return rows by uid, many of them copies of others in bytes or in most bits of their hash, a few without hash, score or URL."""
    generator = np.random.default_rng(seed)
    owner = np.where(
        generator.random(num_rows) < 0.3, generator.integers(0, num_rows, num_rows), np.arange(num_rows)
    )
    hashes = generator.integers(0, 2**64, num_rows, np.uint64)[owner]
    for row in np.flatnonzero(generator.random(num_rows) < 0.4):
        for bit in generator.choice(64, int(generator.integers(0, 6)), replace=False):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    content = np.where(generator.random(num_rows) < 0.8, owner, owner % 40)
    digest = [hashlib.blake2b(str(n).encode(), digest_size=16).digest() for n in content.tolist()]
    scores = {}
    for name in ("similarity", "a_score"):
        values = np.round(generator.random(num_rows), 2).astype(np.float32)
        values[generator.random(num_rows) < 0.05] = np.nan
        scores[name] = values
    domain = np.minimum(generator.zipf(1.3, num_rows), 400) - 1
    domain[generator.random(num_rows) < 0.02] = -1
    return in_memory.Rows(
        uid=np.array([f"{n:032x}" for n in range(num_rows)], np.bytes_),
        split=generator.choice(3, num_rows, p=[0.1, 0.1, 0.8]).astype(np.int8),
        sha256=np.frombuffer(b"".join(digest), np.uint64).reshape(-1, 2),
        phash=hashes,
        has_phash=generator.random(num_rows) < 0.95,
        domain=domain,
        domains=[f"site{n}.org" for n in range(400)],
        scores=scores,
    )


def blocks(found: in_memory.Rows, block_rows: int) -> tuple[list[Any], list[Block]]:
    """Return the rows as blocks of shards of 50 rows; each block has names of domains of its own."""
    counts = [50] * (len(found.uid) // 50)
    names = [str(number) for number in range(len(counts))]
    plans = block_plans(names, names, counts, block_rows)
    made = []
    for plan in plans:
        part = slice(plan.first_row, plan.first_row + plan.num_rows)
        named = pa.array([found.domains[n] if n >= 0 else None for n in found.domain[part].tolist()])
        held = named.dictionary_encode()
        made.append(
            Block(
                plan=plan,
                position=np.zeros(plan.num_rows, np.int32),
                split=found.split[part],
                digest=found.sha256[part],
                has_digest=np.ones(plan.num_rows, bool),
                phash=found.phash[part],
                has_phash=found.has_phash[part],
                domain=held.indices.fill_null(-1).to_numpy(),
                domains=held.dictionary,
                scores={name: values[part] for name, values in found.scores.items()},
            )
        )
    return plans, made


def whole_set(found: in_memory.Rows, num_parts: int) -> WholeSet:
    plans, made = blocks(found, -(-len(found.uid) // num_parts))
    return WholeSet("", Tasks(), plans, made, [], num_parts)


def judged(
    found: in_memory.Rows, settings: CurateSettings, num_parts: int
) -> tuple[np.ndarray, dict[str, Any]]:
    whole = whole_set(found, num_parts)
    judge(whole, settings)
    return np.concatenate(list(whole.reasons)), whole.facts


@pytest.mark.parametrize("num_parts", [1, 4, 64])
@pytest.mark.parametrize("name", RULES)
def test_law_the_verdict_is_that_of_all_rows_in_memory(name: str, num_parts: int) -> None:
    settings = CurateSettings.model_validate(RULES[name])
    for seed in range(2 if num_parts < 64 else 1):
        found = rows(seed)
        expected = in_memory.judge(found, settings)
        reasons, facts = judged(found, settings, num_parts)
        np.testing.assert_array_equal(reasons, expected.reason)
        assert facts.keys() == expected.facts.keys()
        for fact in facts.keys() - {"largest_domains"}:
            assert facts[fact] == expected.facts[fact]
        told, were = facts.get("largest_domains", {}), expected.facts.get("largest_domains", {})
        assert sorted(told.values()) == pytest.approx(sorted(were.values()))
        assert 0 < (reasons < 0).sum() < NUM_ROWS


def test_no_train_row_gives_no_threshold() -> None:
    found = rows(0, 200)
    found.split[:] = TRAIN - 1
    settings = CurateSettings.model_validate({"scores": [{"score": "similarity", "top_share": 0.1}]})
    reasons, facts = judged(found, settings, 4)
    np.testing.assert_array_equal(reasons, in_memory.judge(found, settings).reason)
    assert facts["similarity_threshold"] == -np.inf


def test_too_few_domains_for_the_share_is_the_same_line() -> None:
    found = rows(0, 200)
    found.domain[:] = np.arange(200) % 3
    settings = CurateSettings(max_domain_share=0.1)
    with pytest.raises(InputError, match="3 registered domains") as told:
        judged(found, settings, 4)
    with pytest.raises(InputError) as was:
        in_memory.judge(found, settings)
    assert str(told.value) == str(was.value)
    assert "\n" not in str(told.value)


def test_rows_without_bytes_are_nobodys_copy() -> None:
    found = rows(0, 200)
    plans, made = blocks(found, 200)
    unknown = [Block(**{**vars(block), "has_digest": np.zeros(200, bool)}) for block in made]
    whole = WholeSet("", Tasks(), plans, unknown, [], 1)
    judge(whole, CurateSettings(placeholder_min_urls=2))
    assert (whole.reasons[0] < 0).all()
