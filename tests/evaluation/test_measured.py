"""What evaluation reads of a run: kept pictures, and of the train pictures only captions that may be learned from."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from corgi.comparison.scores import judge
from corgi.comparison.spaces import Space
from corgi.evaluation import stage
from corgi.evaluation.measured import Pictures, load_pictures, trained_concepts
from corgi.evaluation.metrics import figures
from corgi.settings.compare import ScoreSettings
from corgi.settings.models import EvaluateSettings
from corgi.tables.run import Run
from corgi.tables.schema import Reason, Split
from tests.support.tables import (
    Picture,
    commit_curate,
    commit_download,
    commit_embed,
    commit_plan,
    new_run,
    some_pictures,
    tiny_run,
    vector,
)

PICTURES = [p for p in some_pictures(40) if p.reason is None]
WITHHELD = [p.url for p in PICTURES if p.split == "train"][::2]


def run_with(root: Path, dropped: Collection[str] = (), withheld: Collection[str] = ()) -> Run:
    run = new_run(root)
    commit_plan(run, PICTURES)
    commit_download(run, PICTURES)
    commit_embed(run, PICTURES)
    reasons = dict.fromkeys(dropped, Reason.EXACT_DUPLICATE)
    commit_curate(run, PICTURES, reasons, withheld=withheld)
    return run


def references(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    """Return the references that need no training, of the comparison and of the evaluation."""
    names = ("download", "embed", "curate")
    paths = {name: tuple(shard.path for shard in run.shards(name)) for name in names}
    space = Space("own", 0.8)
    compared = judge(run.store, paths, space, ScoreSettings()).references()
    monkeypatch.setattr(stage, "assemble", lambda store, shards: None)  # no model is asked
    shards = {name: run.store.listed(run.stages()[name]) for name in names}
    return compared, stage.Measured(run.store, {}, shards, EvaluateSettings()).references()


def test_references_see_no_caption_that_the_priors_were_denied(tmp_path, monkeypatch) -> None:
    """A picture whose caption is withheld is to them as if it were not there; the prior's rows are the same by test_rows."""
    withheld = references(run_with(tmp_path / "a", withheld=WITHHELD), monkeypatch)
    assert withheld == references(run_with(tmp_path / "b", dropped=WITHHELD), monkeypatch)
    assert withheld != references(run_with(tmp_path / "c"), monkeypatch)


MIXED = [
    *some_pictures(),
    Picture("http://pictures.test/none.png"),
    Picture("http://pictures.test/coarse.png", (("picture", "coarse"),)),
    Picture("http://pictures.test/full.png", (("first", "full"), ("second", "full"))),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path, MIXED)


def loaded(run: Run, limit: int = 1000) -> Pictures:
    shards = {name: run.shards(name) for name in ("download", "embed", "curate")}
    return load_pictures(run.store, shards, limit)


def test_each_kept_picture_with_a_full_caption_is_there_once_with_what_is_its_own(run: Run) -> None:
    found = loaded(run)
    kept = {picture.uid: picture for picture in MIXED[1:] if picture.reason is None}
    captioned = {uid for uid, picture in kept.items() if "full" in {kind for _, kind in picture.captions}}
    assert len(found.uid) == len(captioned)
    assert set(found.uid) == captioned
    for row, uid in enumerate(found.uid):
        picture = kept[uid]
        words = {kind: [text for text, own in picture.captions if own == kind] for kind in ("full", "coarse")}
        assert (found.split[row], found.group[row]) == (picture.split, picture.group)
        assert found.caption[row] == words["full"][0]
        assert found.coarse[row] == (words["coarse"][0] if words["coarse"] else None)
        np.testing.assert_allclose(found.image[row], vector(uid, 8), atol=2e-3)
        assert found.text[row] @ found.image[row] > 0.5
        if not words["coarse"]:
            np.testing.assert_array_equal(found.coarse_text[row], found.text[row])


def test_whole_shards_are_read_until_there_are_enough(run: Run) -> None:
    whole = loaded(run)
    first = loaded(run, limit=1)
    assert 0 < len(first.uid) < len(whole.uid)
    assert whole.uid[: len(first.uid)] == first.uid


def grouped(groups: list[str], words: list[str | None]) -> Pictures:
    num = len(groups)
    rows = np.zeros((num, 2), np.float32)
    uids = [f"{num - row}" for row in range(num)]
    learnable = np.ones(num, bool)
    return Pictures(uids, ["test"] * num, groups, learnable, rows, [""] * num, rows, words, rows)


def test_a_group_counts_once_in_the_order_of_uids_up_to_the_limit() -> None:
    found = grouped(["a", "b", "a", "c"], [None] * 4)
    assert found.one_a_group(Split.TEST, 9).tolist() == [3, 1, 0]
    assert found.one_a_group(Split.TEST, 2).tolist() == [3, 1]
    assert found.one_a_group(Split.TRAIN, 9).tolist() == []


def test_words_of_enough_pictures_are_told_with_all_their_rows() -> None:
    found = grouped(["a"] * 5, ["dog", "cat", None, "dog", "cat"])
    assert {word: rows.tolist() for word, rows in found.by_coarse(2).items()} == {
        "cat": [1, 4],
        "dog": [0, 3],
    }
    assert found.by_coarse(3) == {}


def test_concepts_trained_on_are_those_of_train_pictures_whatever_curate_drops(tmp_path: Path) -> None:
    """A tower is trained before curate."""

    def drawn(number: int, split: str, concept: str, *captions: tuple[str, str]) -> Picture:
        return Picture(f"http://p.test/{number}.png", captions, split, saved=(("concept", concept),))

    dropped = drawn(0, "train", "dropped", ("a", "full"))
    used = [
        drawn(1, "train", "fox", ("a", "full")),
        drawn(2, "train", "bare"),
        drawn(3, "test", "owl", ("a", "full")),
    ]
    none = Picture("http://p.test/4.png", (("a", "full"),))
    run = tiny_run(tmp_path, [dropped, *used, none])
    shards = {name: run.shards(name) for name in ("download", "embed", "curate")}
    assert trained_concepts(run.store, shards, "concept") == {"dropped", "fox", "bare"}
    found = load_pictures(run.store, shards, 1000)
    assert {uid: saved for uid, saved in zip(found.uid, found.saved, strict=True)} == {
        used[0].uid: {"concept": "fox"},
        used[2].uid: {"concept": "owl"},
        none.uid: {},
    }


def test_held_out_pictures_of_concepts_trained_on_stand_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(number: int, split: str, concept: str) -> Picture:
        caption = (f"caption {number}", "full")
        return Picture(f"http://p.test/{number}.png", (caption,), split, saved=(("concept", concept),))

    trained = [drawn(number, "train", f"known{number}") for number in range(6)]
    pairs = [drawn(10 + number, "test", f"known{number}") for number in range(1, 4)]
    concepts = [drawn(20 + number, "test", f"new{number}") for number in range(3)]
    run = new_run(tmp_path)
    for commit in (commit_plan, commit_download, commit_embed):
        commit(run, [*trained, *pairs, *concepts])
    commit_curate(run, [*trained, *pairs, *concepts], {})
    shards = {name: run.store.listed(run.stages()[name]) for name in ("download", "embed", "curate")}
    monkeypatch.setattr(stage, "assemble", lambda store, shards: None)

    def groups(**settings: str) -> dict[str, set[str]]:
        measured = stage.Measured(run.store, {}, shards, EvaluateSettings.model_validate(settings))
        return {
            label: {measured.pictures.uid[row] for row in rows} for label, rows in measured.groups().items()
        }

    def uids(pictures: list[Picture]) -> set[str]:
        return {picture.uid for picture in pictures}

    assert groups() == {"TRAIN": uids(trained), "HELD-OUT": uids(pairs + concepts)}
    assert groups(concept_col="concept") == {
        "TRAIN": uids(trained),
        "HELD-OUT PAIR": uids(pairs),
        "HELD-OUT CONCEPT": uids(concepts),
    }


def test_every_figure_goes_to_the_tracker_under_its_path() -> None:
    metrics = {
        "copying": {"HELD-OUT": {"pixels": {"share": 0.5}}},
        "rows": 3,
        "notes": ["read them"],
        "none": None,
    }
    assert dict(figures(metrics)) == {"copying/HELD-OUT/pixels/share": 0.5, "rows": 3.0}
