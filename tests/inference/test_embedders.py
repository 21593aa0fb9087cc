"""Baselines in the prior's place: which rows they read, and that everything else is the run's own."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import corgi
from corgi.evaluation.metrics import softmax_average
from corgi.inference.embedders import EMBEDDERS, NUM_NEIGHBOURS, TEMPERATURE, train_images, train_pairs
from corgi.models.embedder import Sampling
from corgi.models.language_free import nearest_mean
from corgi.names import EmbedderName
from corgi.settings.errors import InputError
from corgi.tables.run import Run
from corgi.tables.schema import Split
from tests.support.painting_run import DIM, painting_run
from tests.support.tables import (
    commit_curate,
    commit_download,
    commit_embed,
    commit_plan,
    new_run,
    some_pictures,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run up to curate, one caption withheld."""
    run, pictures = new_run(tmp_path_factory.mktemp("tables")), some_pictures(40)
    commit_plan(run, pictures)
    commit_download(run, pictures)
    commit_embed(run, pictures, dim=DIM)
    withheld = [next(one.url for one in pictures if one.split == "train" and one.reason is None)]
    commit_curate(run, pictures, {}, withheld=withheld)
    return run


def test_the_names_are_those_of_the_settings() -> None:
    assert set(EMBEDDERS) | {"prior"} == set(get_args(EmbedderName))


def test_law_nothing_held_out_and_no_withheld_caption_is_read(tables: Run) -> None:
    train = [shard.images(Split.TRAIN, ["uid"]).num_rows for shard in tables.embedded()]
    text, image = train_pairs(tables)
    assert len(train_images(tables)) == sum(train)
    assert len(text) == len(image) == sum(train) - 1


def test_law_each_is_its_equation_over_the_runs_own_rows(tables: Run) -> None:
    asked = torch.nn.functional.normalize(torch.randn(4, DIM), dim=-1)
    text, image = (rows.astype(np.float32) for rows in train_pairs(tables))
    found = {name: build(tables).sample(asked, range(4), Sampling()) for name, build in EMBEDDERS.items()}
    torch.testing.assert_close(found["text"], asked)
    expected = softmax_average(asked.numpy(), text, image, TEMPERATURE)
    np.testing.assert_allclose(found["softmax"].numpy(), expected, atol=1e-4)
    pictures = torch.from_numpy(train_images(tables).astype(np.float32))
    torch.testing.assert_close(found["neighbours"], nearest_mean(asked, pictures, NUM_NEIGHBOURS))


def test_a_run_paints_from_the_captions_own_embedding(tmp_path: Path) -> None:
    run = painting_run(tmp_path)
    raw, own = corgi.load(run.folder, embedder="text"), corgi.load(run.folder)
    [painted] = raw.generate("a fox", seed=2)
    [expected] = own.paint(own.text_embedding(["a fox"]), [2])
    assert np.abs(np.asarray(painted).astype(int) - np.asarray(expected)).max() <= 1
    assert raw.manner == {"embedder": "text", **own.manner}


def test_a_decoder_of_pseudo_text_is_given_captions_as_they_are(tmp_path: Path) -> None:
    generator = corgi.load(painting_run(tmp_path, decoder={"pseudo_text_xi": 2.65}).folder)
    assert generator.embedder == "text"
    text = generator.text_embedding(["a fox"])
    torch.testing.assert_close(generator.embeddings(["a fox"], [0]).cpu(), text)


def test_a_run_without_train_pictures_is_one_line(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    pictures = [one for one in some_pictures(20) if one.split == "test"]
    commit_plan(run, pictures)
    commit_download(run, pictures)
    commit_embed(run, pictures, dim=DIM)
    commit_curate(run, pictures, {})
    for name in ("softmax", "neighbours"):
        with pytest.raises(InputError, match="has no train picture"):
            EMBEDDERS[name](run)
