"""The answers of the experiment with few captions: differences are paired by seed, and an answer is only given by an interval."""

import pytest

from benchmarks.caption_answers import best_prior, kept_rows, lafite_rows, minus, plot, without_rows
from benchmarks.few_captions import FewCaptions


def left(seed: int, share: float, **found: float) -> dict:
    """Return a file in which every method has a value for R@1 and for its Frechet distance, which falls as R@1 rises."""
    figures = {
        name.replace("_", " "): {"HELD-OUT PAIR": {"R@1": value, "Frechet": 1 - value}}
        for name, value in found.items()
    }
    return {"seed": seed, "share": share, "figures": figures}


def arms(few: float, whole: float, text: float = 0.1, noise: float = 0.001) -> list[dict]:
    return [
        one
        for seed in (0, 1, 2)
        for one in (
            left(seed, 0.0, text_embedding=text + noise * seed, nearest_pictures=few - 0.1),
            left(seed, 0.017, prior_shifted=few + 2 * noise * seed, prior_dalle2=few - 0.05),
            left(seed, 1.0, prior_shifted=whole + 3 * noise * seed, prior_dalle2=whole),
        )
    ]


@pytest.mark.parametrize(
    ("few", "whole", "answer"),
    [(0.29, 0.3, "enough"), (0.15, 0.3, "not enough"), (0.1, 0.1003, "cannot be asked at this size")],
)
def test_few_captions_are_enough_only_if_the_interval_of_the_share_kept_says_so(few, whole, answer):
    rows = {row[0]: row for row in kept_rows(arms(few, whole))}
    assert rows["prior shifted"][-1] == answer


def test_the_share_kept_is_that_of_the_gain_over_the_text_embedding():
    row = next(iter(kept_rows(arms(0.2, 0.3, noise=0))))
    assert row[0] == "prior dalle2"
    assert row[2].startswith("+0.250")  # (.15 - .1) / (.3 - .1)


def test_a_method_without_captions_is_as_good_unless_an_interval_lies_on_the_worse_side():
    rows = {row[0]: row[-1] for row in without_rows(arms(0.29, 0.3))}
    assert rows == {"text embedding": "no", "nearest pictures": "no", "lafite-fixed": "not run"}
    rows = {row[0]: row[-1] for row in without_rows(arms(0.29, 0.3, text=0.5))}
    assert rows["text embedding"] == "yes"


def test_the_best_prior_is_that_of_the_largest_mean():
    files = arms(0.2, 0.3)
    assert best_prior(files, 0.017) == "prior shifted"
    assert best_prior(files, 0.1) is None


def test_the_questions_can_be_asked_of_another_measure():
    files = [
        {
            **one,
            "figures": {
                name: {"HELD-OUT PAIR": {"similarity": found["HELD-OUT PAIR"]["R@1"]}}
                for name, found in one["figures"].items()
            },
        }
        for one in arms(0.29, 0.3)
    ]
    assert list(kept_rows(files, "similarity")) == list(kept_rows(arms(0.29, 0.3)))


def test_differences_need_the_same_seeds():
    files = [left(0, 0.0, a=0.1, b=0.3), left(1, 0.0, a=0.2)]
    assert not len(minus(files, ("a", 0.0), ("b", 0.0), "R@1"))
    assert list(minus(files, ("a", 0.0), ("a", 0.0), "R@1")) == [0, 0]
    apart = [left(0, 0.0, a=0.1), left(1, 0.0, b=0.3)]
    assert not len(minus(apart, ("a", 0.0), ("b", 0.0), "R@1"))
    answers = [row[-1] for row in lafite_rows(files)]
    assert answers == ["not run"] * 3


def test_the_page_of_some_arms_is_written_and_its_plot_is_a_png():
    files = arms(0.2, 0.3)
    for one in files:
        for figures in one["figures"].values():
            figures["HELD-OUT PAIR"] |= dict.fromkeys(
                ("similarity", "precision", "recall", "density", "coverage", "spread"), 0.5
            )
    text = "\n".join(FewCaptions.parts(None, files))  # type: ignore[arg-type]
    assert "Question 1" in text
    assert "| 100 % | prior shifted | 3 |" in text
    assert plot(files).startswith(b"\x89PNG")
