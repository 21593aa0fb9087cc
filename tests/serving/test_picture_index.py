"""The index of a run's pictures: exact while small, near exact beyond, and always among the rows that were asked for."""

from pathlib import Path

import numpy as np
import pytest

from corgi.serving import picture_index
from corgi.serving.picture_index import TRAINED, PictureIndex, Where
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from tests.support.tables import (
    DIM,
    commit_curate,
    commit_download,
    commit_embed,
    commit_plan,
    new_run,
    some_pictures,
    vector,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    pictures = some_pictures(40)
    found = new_run(tmp_path_factory.mktemp("indexed"))
    commit_plan(found, pictures)
    commit_download(found, pictures)
    commit_embed(found, pictures)
    commit_curate(
        found, pictures, {pictures[0].url: Reason.EXACT_DUPLICATE, pictures[1].url: Reason.DOMAIN_CAP}
    )
    return found


@pytest.fixture(scope="module")
def index(run: Run) -> PictureIndex:
    found = PictureIndex.load(run)
    assert found is not None
    return found


def exact(index: PictureIndex, query: np.ndarray, where: Where) -> list[str]:
    """Return the uids by cosine, by comparing all of them, among rows that a plain loop chooses."""
    chosen = []
    for row in range(len(index.uid)):
        told = index.found(row, 0.0)
        wanted = {"split": where.split, "keep": where.keep, "reason": where.reason, "domain": where.domain}
        if all(value is None or getattr(told, name) == value for name, value in wanted.items()):
            chosen.append(told.uid)
    return sorted(chosen, key=lambda uid: -float(query @ np.array(vector(uid, DIM))))


@pytest.mark.parametrize(
    "where",
    [
        Where(),
        TRAINED,
        Where(keep=False),
        Where(split="test"),
        Where(reason="domain_cap"),
        Where(domain="pictures.test"),
        Where(domain="elsewhere.test"),
        Where(split="val", keep=False),
    ],
    ids=str,
)
def test_what_is_found_is_what_comparing_all_of_the_chosen_finds(index, where):
    for seed in range(5):
        query = np.random.default_rng(seed).normal(size=DIM)
        query /= np.linalg.norm(query)
        found = index.search(query, 10, where)
        assert [one.uid for one in found] == exact(index, query, where)[:10]
        cosines = [one.similarity for one in found]
        assert cosines == sorted(cosines, reverse=True)


@pytest.mark.parametrize("most", [0.0, 1.0], ids=["after the search", "in it"])
def test_law_rows_are_chosen_after_a_search_as_in_it(index, monkeypatch, most):
    monkeypatch.setattr(picture_index, "MOST_ROWS", most)
    for where in (TRAINED, Where(split="test"), Where(keep=False)):
        for seed in range(5):
            query = np.random.default_rng(seed).normal(size=DIM)
            query /= np.linalg.norm(query)
            found = [one.uid for one in index.search(query, 7, where)]
            assert found == exact(index, query, where)[:7]


def test_rows_of_every_picture_and_of_no_other_name(index, run):
    for row in range(len(index.uid)):
        uid = index.found(row, 0.0).uid
        assert index.row_of(uid) == row
        assert np.allclose(index.vector(row), vector(uid, DIM), atol=2e-3)
        assert index.encoding(uid)[:4] == b"\x89PNG"
    for name in ("", "0" * 32, "f" * 33, "../run.json", "ä" * 32):
        assert index.row_of(name) is None
        assert index.encoding(name) is None


def test_a_run_without_pictures_has_no_index(tmp_path: Path):
    empty = new_run(tmp_path)
    commit_plan(empty, [])
    commit_download(empty, [])
    commit_embed(empty, [])
    commit_curate(empty, [], {})
    assert PictureIndex.load(empty) is None
