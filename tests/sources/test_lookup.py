"""A closed stage's shards are found by the hashes of URLs alone."""

from corgi.sources.lookup import leading_bits, shards_with
from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.places import shard_of, uid
from corgi.tables.store import ShardTask, Store

NUM_SHARDS = 7
URLS = [f"http://site.test/{number}.png" for number in range(100)]


def stage(store: Store) -> StageManifest:
    shards = []
    for number in range(NUM_SHARDS):
        task = ShardTask(store.location, "download", f"{number:05d}", f"key-{number}", 1, "code", {})
        with store.attempt(task) as attempt:
            shards.append(attempt.commit(RowCounts(rows_in=0, kept=0)))
    return StageManifest(
        stage="download",
        key="key",
        version=1,
        code="code",
        commit=None,
        settings={},
        inputs={},
        shards=tuple(map(ShardEntry.of, shards)),
        rows=RowCounts(rows_in=0, kept=0),
    )


def test_law_each_url_is_looked_for_in_the_shard_that_the_plan_gave_it(tmp_path):
    store = Store(tmp_path)
    found = {}
    for shard, rows in shards_with(store, stage(store), URLS):
        found.update(dict.fromkeys((URLS[row] for row in rows), int(shard.shard)))
    assert found == {url: shard_of(uid(url), NUM_SHARDS) for url in URLS}


def test_only_shards_that_can_be_read_are_given(tmp_path):
    store = Store(tmp_path)
    made = stage(store)
    (store.root / made.shards[3].path).write_text("damaged")
    (store.root / made.shards[4].path).unlink()
    names = [shard.shard for shard, _ in shards_with(store, made, URLS)]
    assert names == ["00000", "00001", "00002", "00005", "00006"]
    assert list(shards_with(store, made, [])) == []
    assert leading_bits([]).shape == (0,)
