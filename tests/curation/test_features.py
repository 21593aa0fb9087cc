"""The features stage: the narrow columns of stored images and their domain; a finished curate needs none."""

import pyarrow as pa
import pytest

from corgi.curation.features import features
from corgi.curation.stages import Features
from corgi.flow.dag import Selection, open_dag
from corgi.flow.executor import in_process
from corgi.settings.recipe import Recipe
from corgi.tables.schema import FEATURES
from tests.curation.test_planted import NUM_ROWS, NUM_SHARDS, SET, curated


def test_features_are_the_images_narrow_columns_and_their_domain() -> None:
    images = pa.table(
        {
            "uid": ["a", "b", "c"],
            "url": ["https://x.example.co.uk/1", None, "http://127.0.0.1/2"],
            "sha256": ["s", None, "t"],
            "phash": [None, "p", "q"],
            "split": ["train", "val", "test"],
            "image": [b"x", b"y", b"z"],
        }
    )
    found = features(images)
    assert found.schema.equals(FEATURES)
    assert found["domain"].to_pylist() == ["example.co.uk", None, "127.0.0.1"]
    for name in ("uid", "sha256", "phash", "split"):
        assert found[name].to_pylist() == images[name].to_pylist()
    assert features(images.slice(0, 0)).num_rows == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return curated(tmp_path_factory.mktemp("features"))[0]


def test_every_shard_of_the_download_has_its_features(made) -> None:
    shards = made.run.shards("features")
    assert [shard.shard for shard in shards] == [f"{n:05d}" for n in range(NUM_SHARDS)]
    tables = pa.concat_tables([made.store.read(shard, "features") for shard in shards])
    order = sorted(range(NUM_ROWS), key=lambda n: SET.uid[n])
    assert tables["uid"].to_pylist() == [SET.uid[n] for n in order]
    assert tables["sha256"].to_pylist() == [SET.sha256[n] for n in order]
    assert sum(entry.size for shard in shards for entry in shard.files) < 120 * NUM_ROWS


def test_curate_has_the_key_it_had_without_features(made) -> None:
    """As the finished runs have it: digests of download and embed, and nothing of features."""
    curate = made.run.stages()["curate"]
    assert set(curate.inputs) == {"download", "embed"}
    assert all(set(shard.inputs) == {"embed"} for shard in made.run.shards("curate"))


def test_a_finished_curate_asks_for_no_features_and_another_one_does(made, tmp_path) -> None:
    """A run of before has none: nothing of it is redone until curate is."""
    alone = [stage for stage in made.stages if not isinstance(stage, Features)]
    assert [step.done is not None for step in open_dag(alone, made.recipe).plan(Selection())] == [True] * 3
    for entry in (made.store.root / "features").iterdir():
        entry.rename(tmp_path / entry.name)
    assert [step.stage.name for step in made.plan(Selection())] == ["download", "embed", "curate"]
    with in_process():
        assert made.execute(Selection(), lambda line: None) == 0
    values = {**made.recipe.model_dump(mode="json"), "curate": {"min_similarity": 0.2}}
    other = open_dag(made.stages, Recipe.model_validate(values))
    for selection in (Selection(), Selection(only="curate"), Selection(first="curate")):
        todo = [step.stage.name for step in other.plan(selection) if step.done is None]
        assert todo == ["features", "curate"]
    with in_process():
        assert other.execute(Selection(only="curate"), lambda line: None) == 2
