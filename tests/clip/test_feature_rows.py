"""A training of heads is told counts and moments: no worker opens a shard before it reads its own rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.clip import feature_rows
from corgi.clip.feature_rows import MOMENT_SHARDS, CountedShard, FeatureRows, FeatureSet, measured
from corgi.clip.features import moments_table, stored_moments, train_moments
from corgi.clip.projection_heads import HeadsObjective
from corgi.clip.vectors import column
from corgi.feeding.feed import Feed
from corgi.feeding.order import Order
from corgi.settings.clip import TowerSettings
from corgi.statistics.moments import empty_moments, merged
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask, Store
from tests.support.frozen_features import commit_features
from tests.support.tables import Picture, tiny_run

PICTURES = [Picture(f"http://p.test/{n}", split="val" if n % 3 == 0 else "train") for n in range(60)]
SETTINGS = TowerSettings(embed_dim=8).model_dump(mode="json")


def _opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the manifests opened and the tables read from here on, by manifest."""
    opened: Counter[str] = Counter()
    read_shard, read = Store.read_shard, Store.read

    def counted_shard(store: Store, path: str):
        opened[path] += 1
        return read_shard(store, path)

    def counted_read(store: Store, manifest, table: str, columns=None):
        opened[f"{manifest.path} {table}"] += 1
        return read(store, manifest, table, columns)

    monkeypatch.setattr(Store, "read_shard", counted_shard)
    monkeypatch.setattr(Store, "read", counted_read)
    return opened


@pytest.mark.law
@given(st.data())
def test_law_moments_stored_by_shard_are_those_of_all_train_pictures_however_they_are_cut(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(1, 60), "rows")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    split = np.where(rng.random(count) < data.draw(st.floats(0, 1), "train share"), "train", "val")
    far = data.draw(st.floats(-100, 100), "offset")
    pictures = pa.table(
        {"split": split, "feature": column(rng.standard_normal((count, 5)) * [0, 1e-2, 1, 5, 30] + far)}
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=8), "cuts"))
    pieces = zip([0, *cuts], [*cuts, count], strict=True)
    parts = [train_moments(pictures.slice(begin, end - begin)) for begin, end in pieces]
    found = merged([empty_moments((), 5), *parts])
    train = np.stack(pictures["feature"].to_pylist()).astype(np.float64)[split == "train"]
    assert found.count == len(train)
    if len(train):
        np.testing.assert_allclose(found.mean, train.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.variance, train.var(axis=0), rtol=1e-9, atol=1e-9)


def test_moments_are_stored_to_the_last_bit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    moments = train_moments(
        pa.table(
            {"split": ["train"] * 7, "feature": column(np.random.default_rng(1).standard_normal((7, 9)))}
        )
    )
    with store.attempt(ShardTask(store.location, "tower", "features-00000", "k", 1, "c", {})) as attempt:
        attempt.write_table("moments", moments_table(moments))
        shard = attempt.commit(RowCounts(rows_in=0, kept=0))
    found = stored_moments(store, shard, 7)
    assert found is not None
    assert int(found.count) == 7
    assert [found.mean.tolist(), found.second.tolist()] == [moments.mean.tolist(), moments.second.tolist()]


@pytest.mark.parametrize(("counts", "moments"), [(True, False), (False, False)])
def test_shards_made_before_counts_or_moments_were_stored_give_the_same_training(
    tmp_path: Path, counts: bool, moments: bool
) -> None:
    told, before = (tiny_run(tmp_path / name, PICTURES, num_shards=3) for name in ("told", "before"))
    newer = FeatureSet.read(told.store, commit_features(told))
    older = FeatureSet.read(before.store, commit_features(before, counts, moments))
    assert [shard[1:] for shard in newer.shards] == [shard[1:] for shard in older.shards]
    assert sum(shard.train for shard in newer.shards) == int(newer.images.count) == 40
    expected, found = (held.as_arguments() for held in (older, newer))
    assert {name: found[name] for name in ("mean", "std")} == {
        name: expected[name] for name in ("mean", "std")
    }


@pytest.mark.parametrize("most", [256, 2])
def test_the_driver_reads_no_picture_and_the_moments_of_so_many_shards(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, PICTURES, num_shards=3)
    paths = commit_features(run)
    monkeypatch.setattr(feature_rows, "MOMENT_SHARDS", most)
    opened = _opened(monkeypatch)
    held = FeatureSet.read(run.store, paths)
    picked = paths if most == 256 else [paths[0], paths[-1]]
    assert opened == Counter([*paths, *picked, *(f"{path} moments" for path in picked)])
    assert [shard.path for shard in held.shards] == paths


@pytest.mark.law
@given(st.lists(st.integers(0, 2), max_size=2000))
def test_law_shards_measured_are_spread_over_those_with_train_pictures(counts: list[int]) -> None:
    shards = [CountedShard(str(at), count, 0, 1) for at, count in enumerate(counts)]
    found = measured(shards)
    of_train = [shard for shard in shards if shard.train]
    assert len(found) == len(set(found)) == min(len(of_train), MOMENT_SHARDS)
    places = [of_train.index(shard) for shard in found]
    apart = np.diff([-1, *places, len(of_train)])
    assert apart.min(initial=1) >= 1
    assert apart.max(initial=1) <= len(of_train) / MOMENT_SHARDS + 2


def test_a_worker_opens_no_shard_at_its_start_and_then_those_of_its_own_lanes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path, PICTURES, num_shards=8)
    paths = commit_features(run)
    arguments = FeatureSet.read(run.store, paths).as_arguments()
    opened = _opened(monkeypatch)
    made = HeadsObjective(str(tmp_path), **arguments, settings=SETTINGS)
    rows = made.rows()
    order = Order(rows.counts, 0, 4, 2)
    assert sum(rows.counts) == 40
    assert opened == Counter()
    feed = Feed(rows, order, 4, (1, 4))
    feed.batch(0)
    feed.close()
    own = {paths[unit] for unit in order.units_ahead(order.share(0, 4, 1, 4))}
    assert {name.split()[0] for name in opened} <= own < set(paths)
    assert opened


def test_rows_of_each_split_are_loaded_as_they_were_counted(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, PICTURES, num_shards=3)
    held = FeatureSet.read(run.store, commit_features(run))
    for split, number in ((Split.TRAIN, 40), (Split.VAL, 20), (Split.TEST, 0)):
        rows = FeatureRows(str(tmp_path), held.shards, split)
        assert [len(rows.load(unit)["image"]) for unit in range(3)] == rows.counts
        assert sum(rows.counts) == number
        assert rows.num_slots == 1
