"""Rows out of the training table are those of the set, each with its own captions, latent and words, and few are held."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corgi.feeding.feed import dense
from corgi.feeding.order import Order
from corgi.feeding.pack import in_order, sizes_of
from corgi.feeding.packed_rows import CaptionedRows, LatentRows
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.rows import PriorRows, embedded_shards
from corgi.feeding.word_states import WordStates
from corgi.settings.errors import StorageError
from corgi.settings.recipe import load
from corgi.settings.tower_width import towers_width
from corgi.tables import schema
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.row_groups import cut
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from tests.support.objectives import ENCODER, WORD_WIDTH, add_words, commit_pack, every_row, word_state
from tests.support.tables import Output, close_stage, commit_stage, some_pictures, tiny_run

HOME = Path(__file__).resolve().parents[2]
LATENT = 4
PICTURES = some_pictures(60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = tiny_run(tmp_path_factory.mktemp("runs"), PICTURES)
    commit_pack(made)
    return made


def opened(run: Run) -> PackedSet:
    return PackedSet.open(str(run.store.root.parent), run.stages()["pack"].path)


def latent(uid: str) -> list[float]:
    return [float(int(uid[n : n + 2], 16)) for n in range(LATENT)]


def commit_latents(run: Run, grouped: bool, moved: int = 0) -> None:
    """Commit latents in the order of the training table by row group, or by uid as 0.1 did; `moved` turns the rows."""
    made: list[ShardManifest] = []
    outputs: dict[str, Output] = {}
    for shard in run.embedded():
        kept = shard.images(None, ["uid", "split"]).select(["uid", "split"])
        kept = kept.take(pa.array(in_order(kept["split"].to_pylist()))) if grouped else kept
        rows = kept.to_pylist()
        rows = [{**row, "latent": latent(row["uid"])} for row in rows[moved:] + rows[:moved]]
        table = pa.Table.from_pylist(rows, schema=schema.latents(LATENT))
        counts = RowCounts(rows_in=len(rows), kept=len(rows))
        if not grouped:
            outputs[shard.name] = Output(counts, {"latents": table})
            continue
        task = ShardTask(shard.root, "autoencoder", shard.name, f"{shard.name}{moved}", 1, "c", {})
        with run.store.attempt(task) as attempt:
            sizes = sizes_of(kept["split"].to_pylist())
            made.append(attempt.commit(counts, attempt.write_row_groups("latents", table, sizes)))
    if grouped:
        close_stage(run, "autoencoder", made)
    else:
        commit_stage(run, "autoencoder", outputs)


@pytest.mark.law
@pytest.mark.parametrize("split", list(Split))
def test_captioned_rows_are_those_of_the_embedded_set(run: Run, split: Split) -> None:
    paths = {stage: [shard.path for shard in run.shards(stage)] for stage in ("embed", "curate")}
    before = every_row(PriorRows(embedded_shards(str(run.store.root.parent), paths), split))
    rows = CaptionedRows(opened(run), split)
    after = every_row(rows)
    assert sum(rows.counts) == len(after["image"]) > 0
    for name, values in after.items():
        assert values.shape == before[name].shape
        np.testing.assert_allclose(values, before[name], atol=2e-4)


def test_half_floats_stay_half_and_lists_as_long_as_they_are(run: Run) -> None:
    loaded = CaptionedRows(opened(run), Split.TRAIN).load(0)
    assert loaded["image"].dtype == np.float16
    assert {values.dtype for values in loaded["full"]} == {np.dtype(np.float16)}
    assert {len(values) for values in loaded["full"]} == {1}
    assert dense(loaded["full"]).shape == (len(loaded["image"]), 1, loaded["image"].shape[1])


@pytest.mark.parametrize("grouped", [True, False])
def test_latents_meet_their_pictures(run: Run, grouped: bool) -> None:
    commit_latents(run, grouped)
    listed = run.store.listed(run.stages()["autoencoder"])
    for split in Split:
        rows = LatentRows(opened(run), listed, split)
        for unit, count in enumerate(rows.counts):
            found = rows.load(unit)["latent"]
            assert found.tolist() == [latent(uid) for uid in rows.uids(unit)]
            assert len(found) == count


@pytest.mark.law
def test_a_decoder_reads_the_words_of_full_captions_and_pictures_without_one(tmp_path: Path) -> None:
    lonely = {picture.uid for picture in PICTURES[:20:4]}
    run = tiny_run(tmp_path, [replace(p, captions=()) if p.uid in lonely else p for p in PICTURES[:20]])
    add_words(run)
    commit_latents(run, grouped=True)
    packed, listed = opened(run), run.store.listed(run.stages()["autoencoder"])
    words = WordStates(run.store, packed.names, run.store.listed(run.stages()["embed"]), ENCODER)
    rows, seen = LatentRows(packed, listed, Split.TRAIN, words), set[str]()
    for unit in range(len(rows.counts)):
        loaded = rows.load(unit)
        told = zip(rows.uids(unit), loaded["num_full"], loaded["full_words"], strict=True)
        for uid, count, states in told:
            expected = [] if uid in lonely else [word_state(uid, 0)]
            assert [state.tolist() for state in states if len(state)] == [one.tolist() for one in expected]
            assert count == len(expected)
            seen.add(uid)
        assert dense(loaded["full_words"]).shape[3] == WORD_WIDTH
    assert seen & lonely
    assert seen - lonely


def test_latents_of_other_pictures_are_one_line(run: Run) -> None:
    commit_latents(run, grouped=True, moved=1)
    rows = LatentRows(opened(run), run.store.listed(run.stages()["autoencoder"]), Split.TRAIN)
    with pytest.raises(
        StorageError, match=r"latents are not those of the pictures.*--only autoencoder --force"
    ):
        rows.load(0)


def test_the_table_is_opened_without_a_manifest_or_a_row_group(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened_one(*args: object) -> None:
        raise AssertionError(f"{args[1:]} was read")

    for name in ("read_shard", "read", "read_row_group", "verified"):
        monkeypatch.setattr(Store, name, opened_one)
    rows = CaptionedRows(opened(run), Split.TRAIN)
    assert sum(rows.counts) > 0
    with pytest.raises(AssertionError, match="was read"):
        rows.load(0)


@pytest.mark.law
def test_a_worker_of_the_papers_recipe_holds_less_than_a_gibibyte() -> None:
    """corgi.yaml without words on 8 workers: 40,000 shards, 8,491 train pictures each, one caption per picture."""
    recipe = load(str(HOME / "pipelines/recipes/corgi.yaml"), [])
    settings, dim = recipe.prior.training, towers_width(recipe)
    assert settings.lanes is not None
    assert dim is not None
    counts = cut(8_491) * 40_000
    order = Order(counts, recipe.prior.seed, settings.lanes, settings.shuffle_window)
    most = 0
    for step in (*range(40), *range(70_000, 70_040)):
        wanted = order.units_ahead(order.share(step, settings.global_batch, 0, 8))
        most = max(most, sum(counts[unit] for unit in wanted))
    bytes_per_row = 2 * 2 * dim + 300  # two vectors, and Python's own of a row's two lists
    assert most >= max(counts) * settings.lanes // 8
    assert most * bytes_per_row < 2**30
