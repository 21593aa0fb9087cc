"""The comparison of priors on styles: arms of one setting are put together over the seeds that every contestant has."""

import json

import pytest

from benchmarks.arms import RESULTS
from benchmarks.compare_styles import CONTESTANTS, FULL, Arm, CompareStyles, whole_seeds

MEASURED = {"cosine": 0.5, "R@1": 0.4, "R@10": 0.5, "mmd": 0.1, "two_sample_cosine": 0.6}


def rows_of(arms: tuple[str, ...], seed: int) -> list[dict]:
    return [
        {
            "space": "own",
            "arm": arm,
            "candidates": 1,
            "sampler": "dpm++",
            "steps": steps,
            "seed": seed,
            **MEASURED,
            "frechet": 0.1 + 0.01 * number + 0.001 * seed,
        }
        for number, arm in enumerate(arms)
        for steps in (2, 4, 64)
    ]


def left(arms: tuple[str, ...], seed: int) -> dict:
    truth = {"two_sample_cosine": 0.5, "frechet": 0.01, "words": 9, "held-out concepts": 5}
    return {
        "setting": "pairs-4x",
        "arms": arms,
        "seed": seed,
        "truth": truth,
        "scores": rows_of(arms, seed),
    }


def test_every_contestant_is_trained_once_in_each_setting_with_each_seed():
    trained = [(arm.setting, arm.seed, one) for arm in FULL for one in arm.contestants]
    assert len(trained) == len(set(trained)) == 3 * 3 * len(CONTESTANTS)
    assert len({arm.name for arm in FULL}) == len(FULL)


def test_a_seed_counts_when_all_its_arms_have_left_their_files():
    files = [left(CONTESTANTS[:4], 10), left(CONTESTANTS[4:], 10), left(CONTESTANTS[:4], 11)]
    found = whole_seeds(files)
    assert {way.arm for way in found} == set(CONTESTANTS)
    assert {len(measures["frechet"]) for measures in found.values()} == {1}


def test_the_page_answers_every_question_at_two_and_four_steps():
    files = [left(CONTESTANTS, seed) for seed in (10, 11, 12)]
    experiment = CompareStyles("", (), ())
    text = "\n".join(experiment.parts(files))
    assert text.count("steps against `dalle2` at 64") == 2
    assert "| k16-soft against standardised | 0 | 0 | 3 |" in text
    assert "| k16-soft-raw against k16-soft | 0 | 0 | 3 |" in text
    assert experiment.plots(files)["compare-styles-pairs-4x.png"].startswith(b"\x89PNG")


def test_half_a_setting_is_a_page_too():
    assert "0 seeds" in "\n".join(
        CompareStyles("", (), ()).parts([left(CONTESTANTS[:4], 10), left(CONTESTANTS[4:], 11)])
    )


@pytest.mark.parametrize(
    ("contestants", "seed", "run_again"),
    [(CONTESTANTS[2:4], 10, False), (CONTESTANTS[3:5], 10, True), (CONTESTANTS[2:4], 11, True)],
)
def test_an_arm_is_not_run_again_where_files_hold_its_contestants(tmp_path, contestants, seed, run_again):
    (tmp_path / "pairs-4x.10.dalle2.json").write_text(json.dumps(left(CONTESTANTS[:4], 10)))
    experiment = CompareStyles("", (), ())
    assert experiment.has_left(Arm("pairs-4x", seed, contestants), tmp_path) is not run_again
    assert not experiment.has_left(Arm("pairs", seed, contestants), tmp_path)


def test_no_arm_of_the_experiment_is_left_to_run():
    assert [
        arm.name for arm in FULL if not CompareStyles("", (), ()).has_left(arm, RESULTS / "compare-styles")
    ] == []
