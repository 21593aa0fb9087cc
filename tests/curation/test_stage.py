"""Curate drops rows for a counted reason, keeps the copy that guards the held-out splits, and moves nothing."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from corgi.curation.stages import Curate, Features
from corgi.flow.context import Context
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask
from tests.support.stages import stage

pytestmark = pytest.mark.usefixtures("in_process")

# uid, sha256, split, similarity; None: no caption
Picture = tuple[str, str, str, float | None]
SHARDS: list[list[Picture]] = [
    [
        ("a0", "x", "train", 0.9),
        ("a1", "y", "val", 0.1),
        ("a2", "z", "train", None),
        ("a3", "w", "train", 0.5),
        ("a4", "u", "val", 0.7),
    ],
    [
        ("b0", "x", "test", 0.2),
        ("b1", "y", "train", 0.8),
        ("b2", "v", "train", 0.3),
        ("b3", "w", "train", 0.9),
        ("b4", "u", "test", 0.7),
    ],
]


def download(context: Context) -> list[ShardTask]:
    return _commit(context, {"images": ["uid", "sha256", "split", "phash", "url"]})


def embed(context: Context) -> list[ShardTask]:
    tables = {"image_embeddings": ["uid", "split", "similarity"], "caption_embeddings": ["uid", "kind"]}
    return _commit(context, tables)


def _commit(context: Context, tables: dict[str, list[str]]) -> list[ShardTask]:
    names, tasks = ["uid", "sha256", "split", "similarity", "kind", "phash", "url"], []
    for number, rows in enumerate(SHARDS):
        task = context.task(f"{number:05d}", {"rows": rows})
        tasks.append(task)
        if context.pending([task]):
            with context.store.attempt(task) as attempt:
                for table, columns in tables.items():
                    values = {
                        name: [(*row, "full", "f0f0f0f0f0f0f0f0", None)[names.index(name)] for row in rows]
                        for name in columns
                    }
                    attempt.write_table(table, pa.table(values))
                attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)))
    return tasks


def dag(root: Path, **curate) -> Dag:
    stages = [
        stage("download", download, settings=("download",)),
        stage("embed", embed, ("download",), ("embed",)),
        Features(),
        Curate(),
    ]
    tower = {"name": "rn", "model": "RN50", "pretrained": "random"}
    recipe = Recipe.model_validate(
        {"name": "c", "root": str(root), "curate": curate, "embed": {"towers": [tower]}}
    )
    return open_dag(stages, recipe)


def curated(root: Path, **curate) -> tuple[dict[str, str | None], Dag]:
    """Run; return each picture's reason, None for kept."""
    made = dag(root, **curate)
    made.execute(Selection(), lambda line: None)
    rows = [
        row for shard in made.run.shards("curate") for row in made.store.read(shard, "selection").to_pylist()
    ]
    assert all(row["keep"] == (row["reason"] is None) for row in rows)
    return {row["uid"]: row["reason"] for row in rows}, made


def test_a_copy_in_test_is_kept_before_val_before_train_then_the_lowest_uid(tmp_path):
    reasons, _ = curated(tmp_path)
    assert {uid for uid, reason in reasons.items() if reason} == {"a0", "a4", "b1", "b3"}
    assert set(reasons.values()) == {None, "exact_duplicate"}


def test_no_bytes_are_both_trained_on_and_held_out(tmp_path):
    reasons, _ = curated(tmp_path)
    kept = [row for shard in SHARDS for row in shard if reasons[row[0]] is None]
    assert max(Counter(sha256 for _, sha256, _, _ in kept).values()) == 1
    assert {sha256 for _, sha256, _, _ in kept} == {sha256 for shard in SHARDS for _, sha256, _, _ in shard}


def test_duplicates_may_stay(tmp_path):
    reasons, _ = curated(tmp_path, exact_duplicates=False)
    assert set(reasons.values()) == {None}


@pytest.mark.parametrize(
    ("threshold", "low"),
    [
        (None, set()),
        (-1, set()),
        (0.3, {"a1", "b0"}),
        (0.3001, {"a1", "b0", "b2"}),
        (1, {"a0", "a1", "a3", "a4", "b0", "b1", "b2", "b3", "b4"}),
    ],
)
def test_a_similarity_below_the_threshold_is_dropped_and_none_passes(tmp_path, threshold, low):
    reasons, _ = curated(tmp_path, exact_duplicates=False, min_similarity=threshold)
    assert {uid for uid, reason in reasons.items() if reason == "low_similarity"} == low
    assert reasons["a2"] is None


def test_rows_are_conserved_by_reason_and_stay_in_their_shard(tmp_path):
    reasons, made = curated(tmp_path, min_similarity=0.3)
    manifest = made.run.stages()["curate"]
    assert manifest.rows.rows_in == 10 == manifest.rows.kept + sum(manifest.rows.rejected.values())
    assert manifest.rows.rejected == Counter(reason for reason in reasons.values() if reason)
    for shard, rows in zip(made.store.shards(manifest), SHARDS, strict=True):
        assert made.store.read(shard, "selection")["uid"].to_pylist() == [row[0] for row in rows]


@pytest.mark.law
@pytest.mark.parametrize("caption_share", [1.0, 0.5])
def test_the_counts_by_split_are_those_of_the_committed_rows(tmp_path, caption_share):
    _, made = curated(tmp_path, caption_share=caption_share)
    split = {row[0]: row[2] for shard in SHARDS for row in shard}
    for shard in made.run.shards("curate"):
        kept = [row for row in made.store.read(shard, "selection").to_pylist() if row["keep"]]
        for name in Split:
            mine = [row for row in kept if split[row["uid"]] == name]
            expected = {"images": len(mine), "captioned": sum(row["captioned"] for row in mine)}
            assert shard.facts["splits"][name] == expected


def test_a_second_run_and_a_fresh_one_agree(tmp_path):
    _, first = curated(tmp_path / "one")
    assert dag(tmp_path / "one").execute(Selection(), lambda line: None) == 0
    _, second = curated(tmp_path / "two")
    assert first.run.stages()["curate"].digest == second.run.stages()["curate"].digest


def test_bodies_under_many_urls_are_placeholders(tmp_path):
    reasons, _ = curated(tmp_path, exact_duplicates=False, placeholder_min_urls=2)
    counts = Counter(sha256 for shard in SHARDS for _, sha256, _, _ in shard)
    for uid, sha256, _, _ in (row for shard in SHARDS for row in shard):
        assert reasons[uid] == ("placeholder" if counts[sha256] >= 2 else None)
