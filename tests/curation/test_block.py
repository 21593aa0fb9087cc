"""Blocks are consecutive shards of bounded rows, and hold what the rules read."""

import numpy as np
import pytest

from corgi.curation.block import Wanted, block_plans, load_block
from corgi.settings.clip import CurateSettings
from tests.curation.test_planted import ALL, SET, curated


@pytest.mark.parametrize("block_rows", [1, 10, 25, 10_000])
def test_law_blocks_hold_every_shard_once_and_few_rows(block_rows: int) -> None:
    counts = [7, 0, 12, 30, 1, 1, 9]
    names = [str(number) for number in range(len(counts))]
    plans = block_plans(names, names, counts, block_rows)
    assert [name for plan in plans for name in plan.embed] == names
    assert [count for plan in plans for count in plan.counts] == counts
    assert all(plan.num_rows <= block_rows or len(plan.counts) == 1 for plan in plans)
    firsts = np.cumsum([0, *(plan.num_rows for plan in plans)])[:-1]
    assert [plan.first_row for plan in plans] == firsts.tolist()
    assert block_plans([], [], [], block_rows) == []


@pytest.mark.usefixtures("in_process")
def test_a_block_holds_what_the_rules_read_and_no_more(tmp_path) -> None:
    made, _ = curated(tmp_path, max_domain_share=0.08)
    store, stages = made.store, made.run.stages()
    paths = {name: [entry.path for entry in stages[name].shards] for name in ("features", "embed")}
    counts = [store.read_shard(path).rows.kept for path in paths["embed"]]
    (plan,) = block_plans(paths["features"], paths["embed"], counts, 10**6)
    full = CurateSettings.model_validate({**ALL, "max_domain_share": 0.1, "min_similarity": 0.2})
    block = load_block(store.location, plan, Wanted.of(full))
    order = sorted(range(len(SET.uid)), key=lambda n: SET.uid[n])
    assert block.phash.tolist() == [SET.hashes[n] for n in order]
    assert [("test", "val", "train")[code] for code in block.split] == [SET.split[n] for n in order]
    assert [block.domains[int(code)].as_py() for code in block.domain[:3]] == [
        "big.co.uk" if "big" in SET.url[n] else SET.url[n].split("/")[2].removeprefix("www.")
        for n in order[:3]
    ]
    np.testing.assert_allclose(block.scores["similarity"], [SET.similarity[n] for n in order], rtol=1e-6)
    assert (np.diff(block.rank[block.split == 2]) > 0).all()
    none = load_block(store.location, plan, Wanted.of(CurateSettings(exact_duplicates=False)))
    assert not (none.has_digest.any())
    assert not (none.has_phash.any())
    assert not ((none.domain >= 0).any())
    assert not (none.scores)
