"""The training table holds what every reader of the set sees: kept pictures, and the captions that may be learned from."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from corgi.feeding.captions import MAX_CAPTIONS
from corgi.feeding.pack import SPLITS, packed_rows, sizes_of
from corgi.feeding.stages import Pack
from corgi.flow.context import Context
from corgi.settings.recipe import Recipe, load
from corgi.tables.embedded import vectors_of
from corgi.tables.run import Run
from corgi.tables.schema import Reason, Split
from tests.support.objectives import commit_pack
from tests.support.tables import (
    Picture,
    commit_curate,
    commit_download,
    commit_embed,
    commit_plan,
    new_run,
    some_pictures,
    tiny_run,
)

HOME = Path(__file__).resolve().parents[2]
MANY = tuple((f"caption {n}", "full" if n % 2 else "coarse") for n in range(2 * MAX_CAPTIONS + 4))
ODD = [
    Picture("http://odd.test/many", MANY),
    Picture("http://odd.test/none"),
    Picture("http://odd.test/coarse", (("word", "coarse"),), "val"),
    Picture("http://odd.test/withheld", (("kept back", "full"),)),
]
PICTURES = [p for p in some_pictures(40) if p.reason is None] + ODD


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = tiny_run(tmp_path_factory.mktemp("runs"), PICTURES)
    dropped = {PICTURES[2].url: Reason.EXACT_DUPLICATE}
    commit_curate(made, PICTURES, dropped, withheld=[ODD[3].url])
    commit_pack(made)
    return made


@pytest.mark.law
def test_every_row_is_a_kept_picture_with_the_captions_it_may_teach(run: Run) -> None:
    for shard in run.embedded():
        table, groups = packed_rows(shard)
        images, captions = shard.images(), shard.captions()
        captioned = set(shard.captioned_images()["uid"].to_pylist())
        image = dict(zip(images["uid"].to_pylist(), vectors_of(images, "image"), strict=True))
        text = vectors_of(captions, "text")
        named = captions.select(["uid", "kind"]).to_pylist()
        rows = table.to_pylist()
        assert sorted(row["uid"] for row in rows) == sorted(image)
        order = [(SPLITS.index(Split(row["split"])), row["uid"]) for row in rows]
        assert order == sorted(order)
        for row in rows:
            np.testing.assert_allclose(row["image"], image[row["uid"]], atol=2e-4)
            for kind in ("full", "coarse"):
                own = [n for n, each in enumerate(named) if each == {"uid": row["uid"], "kind": kind}]
                own = own[:MAX_CAPTIONS] if row["uid"] in captioned else []
                assert row[f"{kind}_row"] == own
                assert len(row[kind]) == len(own)
                np.testing.assert_allclose(
                    np.reshape(row[kind], (len(own), text.shape[1])), text[own], atol=2e-4
                )
        for split in Split:
            mine = [group for group in groups if group.split == split]
            assert sum(group.rows for group in mine) == shard.counts()[split].images
            assert sum(group.captioned for group in mine) == shard.counts()[split].captioned


def test_no_row_group_holds_two_splits() -> None:
    split = ["train"] * 2500 + ["val"] * 7 + ["test"] * 1000
    assert sizes_of(split) == [1250, 1250, 7, 1000]


def test_the_table_says_what_was_withheld(run: Run) -> None:
    assert sum(shard.facts["withheld"] for shard in run.shards("pack")) == 1


def test_the_table_is_at_most_a_tenth_more_than_its_vectors(tmp_path: Path) -> None:
    dim, pictures = 512, [Picture(f"http://p.test/{n}", (("one", "full"),)) for n in range(400)]
    run = new_run(tmp_path)
    commit_plan(run, pictures, 1)
    commit_download(run, pictures, 1)
    commit_embed(run, pictures, 1, dim)
    commit_curate(run, pictures, {}, 1)
    commit_pack(run)
    (shard,) = run.shards("pack")
    assert shard.rows.kept == len(pictures)
    assert sum(entry.size for entry in shard.files) <= 1.1 * 2 * 2 * dim * len(pictures)


def test_the_stage_makes_each_shard_once(run: Run, in_process: None) -> None:
    stage = Pack()
    recipe = Recipe.model_validate({"name": "tiny"})
    context = Context(
        stage, recipe, run.store, run, {name: run.stages()[name] for name in stage.inputs}, "key"
    )
    tasks = stage.run(context)
    assert [task.shard for task in tasks] == [shard.shard for shard in run.shards("embed")]
    assert context.pending(tasks) == []
    files = sorted(run.store.root.rglob("pack/**/*"))
    assert stage.run(context) == tasks
    assert sorted(run.store.root.rglob("pack/**/*")) == files


def test_an_empty_shard_is_packed(tmp_path: Path) -> None:
    pictures = [Picture(f"http://p.test/{n}", (("one", "full"),)) for n in range(3)]
    run = tiny_run(tmp_path, pictures)
    commit_curate(run, pictures, dict.fromkeys([p.url for p in pictures], Reason.EXACT_DUPLICATE))
    commit_pack(run)
    assert [shard.rows.kept for shard in run.shards("pack")] == [0, 0]
    assert Counter(shard.facts["groups"] == [] for shard in run.shards("pack")) == {True: 2}


def test_the_plan_says_how_large_the_table_will_be() -> None:
    recipe = load(str(HOME / "pipelines/recipes/corgi.yaml"), [])
    told = "two vectors of 1536 half floats per kept picture with one caption"
    assert Pack().cost(recipe) == [f"pack: at most 6.76 GB per million pictures, {told}"]
    assert Pack().cost(recipe, 400_000_000) == [f"pack: at most 2.7e+03 GB, {told}"]
