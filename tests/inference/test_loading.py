"""Which models may be assembled: those of one run, of the towers and the normalisation that would embed a caption."""

from pathlib import Path

import pytest

import corgi
from corgi.inference.loading import assemble
from corgi.inference.run_models import models_digest, shards_of
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.errors import CorgiError, InputError
from corgi.tables.manifest import RowCounts
from tests.support.painting_run import painting_run
from tests.support.tables import Output, commit_stage, new_run


def test_a_run_is_named_by_its_models(tmp_path: Path) -> None:
    one, other = painting_run(tmp_path, "one"), painting_run(tmp_path, "other", seed=1)
    loaded = corgi.load(one.folder)
    assert loaded.models == models_digest(shards_of(one)) != models_digest(shards_of(other))
    assert loaded.origin.run == "one"


def test_a_run_without_models_and_no_run_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        corgi.load(tmp_path / "nothing")
    run = new_run(tmp_path)
    run.note(name="tiny")
    with pytest.raises(InputError, match="has no complete stage embed"):
        corgi.load(run.folder)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    run = painting_run(tmp_path)
    manifest = run.shards("decoder")[0]
    path = run.store.path(manifest, "decoder")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorgiError, match="bytes, its manifest says") as caught:
        corgi.load(run.folder)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_other_towers_is_one_line(tmp_path: Path) -> None:
    run, stranger = painting_run(tmp_path), new_run(tmp_path, "stranger")
    towers = (TowerRef(name="other", model="RN50", pretrained="random"),)
    settings = {"embed": EmbedSettings(towers=towers).model_dump(mode="json")}
    counts = RowCounts(rows_in=1, kept=1)
    commit_stage(stranger, "embed", {"all": Output(counts, settings=settings)})
    shards = shards_of(run)
    inputs = {"embed": (stranger.shards("embed")[0].path,)}
    foreign = shards["decoder"][0].model_copy(update={"inputs": inputs})
    with pytest.raises(InputError, match="the decoder was trained on embeddings of other"):
        assemble(run.store, {**shards, "decoder": [foreign]})


def test_embeddings_of_another_normalisation_are_one_line(tmp_path: Path) -> None:
    run = painting_run(tmp_path, normalisation="none at all")
    with pytest.raises(InputError, match="'none at all'"):
        corgi.load(run.folder)
