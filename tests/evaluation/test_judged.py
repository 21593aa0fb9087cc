"""What the judge says of paintings that are known: the truth, copies, noise; and that it is told apart from nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from corgi.evaluation import judged
from corgi.evaluation.judged import (
    INDEPENDENT,
    OWN,
    PIXELS,
    RETRIEVED_BY,
    PictureJudge,
    found_first,
    similarity,
)
from corgi.evaluation.judges import Judge
from corgi.evaluation.metrics import retrieval
from corgi.evaluation.painting import CEILING, FROM_PRIOR, FROM_TRUE, Painted
from corgi.evaluation.training_pictures import load_training_pictures, pixels_of
from corgi.tables.run import Run
from tests.support.tables import some_pictures, tiny_run

SIDE = 16


class Colours(nn.Module):
    """A network whose features are the picture at 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)


JUDGE = Judge("colours", "colours", Colours(), SIDE, {"package": "none", "version": "1"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return tiny_run(tmp_path, some_pictures(40))


def picture_judge(run: Run) -> PictureJudge:
    shards = {name: list(run.shards(name)) for name in ("download", "embed", "curate")}
    training = load_training_pictures(run.store, shards, JUDGE, SIDE, 1000)
    return PictureJudge(JUDGE, training, SIDE)


def held_out_pictures(number: int) -> list[Image.Image]:
    draws = np.random.default_rng(5)
    small = draws.integers(0, 256, (number, 4, 4, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.NEAREST) for one in small]


def painted(
    judge: PictureJudge, true: list[Image.Image], **ways: list[Image.Image]
) -> tuple[Painted, dict[str, np.ndarray]]:
    draws = np.random.default_rng(1)
    z = draws.normal(size=(len(true), judge.training.own.shape[1])).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    by_way = {FROM_TRUE: true, FROM_PRIOR: true, CEILING: true} | ways
    own = {way: z for way in by_way}
    return Painted(true, by_way, torch.from_numpy(z), torch.from_numpy(z[::-1].copy())), own


def test_law_the_truth_is_no_copy_and_a_training_picture_is_one_in_both_spaces(run: Run) -> None:
    judge, true = picture_judge(run), held_out_pictures(9)
    copies = judge.training.pictures(range(9))
    told = judge.judge(*painted(judge, true, **{FROM_PRIOR: copies}), held_out=True)
    some = "nearer to some training picture"
    for space in (INDEPENDENT, PIXELS):
        assert told.copying[space][FROM_TRUE][some] == 0
        assert told.copying[space][FROM_TRUE]["nearer to the retrieved one"] == 0
        assert told.copying[space][FROM_PRIOR][some] == 1
        assert set(told.copying[space]) == {FROM_TRUE, FROM_PRIOR, CEILING}
    assert told.pictures[INDEPENDENT][FROM_TRUE]["similarity"] == pytest.approx(1, abs=1e-5)
    assert told.pictures[INDEPENDENT][FROM_TRUE]["R@1"] == 1
    assert told.pictures[INDEPENDENT][FROM_TRUE]["R@1 among all"] == 1
    assert told.pictures[INDEPENDENT][FROM_PRIOR]["R@1 among all"] == 0
    np.testing.assert_array_equal(told.nearest[FROM_PRIOR], range(9))


def test_law_the_reference_of_retrieval_is_the_training_picture_nearest_by_brute_force(run: Run) -> None:
    judge, true = picture_judge(run), held_out_pictures(7)
    shown, own = painted(judge, true)
    told = judge.judge(shown, own, held_out=True)
    truth = judge.vectors(true)
    for way, z in ((FROM_TRUE, shown.true_z), (FROM_PRIOR, shown.prior_z)):
        rows = [
            max(range(len(judge.training.uid)), key=lambda at: z[n].numpy() @ judge.training.own[at])
            for n in range(7)
        ]
        expected = similarity(judge.training.judged[rows], truth, judge.training.judged)
        assert told.pictures[INDEPENDENT][RETRIEVED_BY[way]] == pytest.approx(expected)
        assert told.pictures[OWN][RETRIEVED_BY[way]] == pytest.approx(
            similarity(judge.training.own[rows], shown.true_z.numpy(), judge.training.own)
        )


def test_of_training_pictures_no_retrieval_and_no_copies_are_told(run: Run) -> None:
    judge = picture_judge(run)
    told = judge.judge(*painted(judge, judge.training.pictures(range(5))), held_out=False)
    assert told.copying == {}
    assert set(told.pictures[INDEPENDENT]) == set(told.pictures[OWN]) == {FROM_TRUE, FROM_PRIOR, CEILING}
    np.testing.assert_array_equal(told.nearest[FROM_TRUE], range(5))


def test_law_the_training_picture_shown_beside_a_painting_is_the_nearest_by_pixels_though_the_judge_says_another(
    run: Run,
) -> None:
    judge = picture_judge(run)
    hub = dataclasses.replace(judge.training, judged=np.roll(judge.training.judged, 1, axis=0))
    judge = dataclasses.replace(judge, training=hub)
    faded = [
        Image.eval(picture, lambda value: value // 2 + 64) for picture in judge.training.pictures(range(5))
    ]
    told = judge.judge(*painted(judge, faded), held_out=True)
    rows = pixels_of(faded, SIDE).astype(float)
    brute = [int(((judge.training.pixels - row) ** 2).sum(1).argmin()) for row in rows]
    np.testing.assert_array_equal(told.nearest[FROM_TRUE], brute)


def test_law_the_order_of_the_held_out_pictures_changes_no_mean(run: Run) -> None:
    judge, true = picture_judge(run), held_out_pictures(12)
    shown, own = painted(judge, true, **{FROM_PRIOR: held_out_pictures(13)[1:]})
    order = np.random.default_rng(2).permutation(12)
    moved = Painted(
        [true[row] for row in order],
        {way: [found[row] for row in order] for way, found in shown.ways.items()},
        shown.true_z[order],
        shown.prior_z[order],
    )
    one = judge.judge(shown, own, held_out=True)
    other = judge.judge(moved, {way: vectors[order] for way, vectors in own.items()}, held_out=True)
    for told in ("pictures", "copying"):
        for space, by_way in getattr(one, told).items():
            for way, values in by_way.items():
                means = {name for name in values if "95%" not in name and "control" not in name}
                again = getattr(other, told)[space][way]
                assert {name: values[name] for name in means} == pytest.approx(
                    {name: again[name] for name in means}
                )


def test_found_first_is_the_retrieval_at_one_and_counts_ties_against() -> None:
    draws = np.random.default_rng(0)
    queries, targets = draws.normal(size=(2, 30, 5))
    assert found_first(queries, targets).mean() == retrieval(queries, targets)["R@1"]
    assert not found_first(targets[[0, 0]], targets[[0, 0]]).any()


def test_law_the_first_forty_compete_among_themselves_or_with_every_truth_and_training_picture() -> None:
    draws = np.random.default_rng(0)
    truth, training = draws.normal(size=(60, 16)), draws.normal(size=(30, 16))
    seen = truth + draws.normal(size=truth.shape)
    found = similarity(seen, truth, training)
    assert found["R@1 of the first 40"] == retrieval(seen[:40], truth[:40])["R@1"]
    everything = np.concatenate([truth, training])
    first = (seen[:40] @ everything.T).argmax(1) == np.arange(40)
    assert found["R@1 of the first 40 among all"] == first.mean()
    assert found["R@1 of the first 40"] > found["R@1 of the first 40 among all"] > 0
    assert not {name for name in similarity(seen[:39], truth[:39], training) if "first 40" in name}


def test_the_notes_name_the_judge_and_what_similarity_rewards() -> None:
    told = judged.notes(JUDGE)
    assert "colours (none 1)" in told[0]
    assert any("rewards copying" in note for note in told)
