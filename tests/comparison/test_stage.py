"""The arithmetic of the comparison's verdicts."""

import pytest

from corgi.comparison.stage import Way, against_baseline, against_control, difference, gathered
from corgi.evaluation.metrics import ScoreRow


def scores(arm: str, steps: int, frechet: float, spread: float, retrieved: float) -> list[ScoreRow]:
    return [
        {
            "space": "own",
            "arm": arm,
            "candidates": 1,
            "sampler": "ddim",
            "steps": steps,
            "cosine": 0,
            "R@1": 0,
            "mmd": 0,
            "seed": s,
            "frechet": frechet + 0.001 * s,
            "two_sample_cosine": spread - 0.001 * s,
            "R@10": retrieved,
        }
        for s in range(3)
    ]


def test_differences_are_paired_by_seed_whatever_the_order_of_the_rows() -> None:
    rows = scores("dalle2", 64, 0.2, 0.9, 0.5) + scores("k16", 4, 0.1, 0.9, 0.5)
    found = gathered(reversed(rows))
    a, b = (
        found[Way("own", arm, 1, "ddim", steps)]["frechet"] for arm, steps in (("k16", 4), ("dalle2", 64))
    )
    mean, low, high = difference(a, b)
    assert mean == pytest.approx(-0.1)
    assert high - low < 1e-9


@pytest.mark.parametrize(
    ("frechet", "spread", "retrieved", "wins"),
    [
        (0.1, 0.85, 0.5, "yes"),
        (0.1, 0.85, 0.4, "no"),
        (0.3, 0.85, 0.5, "no"),
        (0.1, 0.95, 0.5, "no"),
        (0.1, 0.5, 0.5, "no"),
    ],
)
def test_an_arm_wins_only_on_distance_spread_and_retrieval_together(frechet, spread, retrieved, wins) -> None:
    rows = scores("dalle2", 64, 0.2, 0.9, 0.5) + scores("k16", 4, frechet, spread, retrieved)
    assert against_baseline(gathered(rows), "own", true_spread=0.8)["k16"]["wins"] == wins


def test_worse_than_the_control_is_counted() -> None:
    rows = (
        scores("standardised", 4, 0.2, 0.9, 0.5)
        + scores("k16", 4, 0.3, 0.9, 0.5)
        + scores("k64", 4, 0.1, 0.9, 0.5)
    )
    table = against_control(gathered(rows), "own")
    assert (table["k16"]["worse at"], table["k16"]["better at"]) == (1, 0)
    assert (table["k64"]["worse at"], table["k64"]["better at"]) == (0, 1)
