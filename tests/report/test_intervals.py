"""Measures with intervals: both spellings are found, and whiskers hold their dot."""

from corgi.report import intervals

METRICS = {
    "decoder": {
        "TRAIN": {
            "from prior": {
                "similarity": {"mean": 0.2, "low 95%": -0.1, "high 95%": 0.4},
                "retrieval": {"R@1": 1.0},
            },
            "ceiling": {"similarity": {"mean": 0.6, "low 95%": 0.5, "high 95%": 0.7}},
        }
    },
    "pictures": {"TRAIN": {"own": {"from prior": {"R@1": 0.5, "R@1, low 95%": 0.25, "R@1, high 95%": 0.75}}}},
    "nothing": {"mean": 1.0},
}


def test_both_spellings_are_found_with_their_paths():
    found = {path: (one.low, one.value, one.high) for path, one in intervals.measured(METRICS)}
    assert found == {
        ("decoder", "TRAIN", "from prior", "similarity"): (-0.1, 0.2, 0.4),
        ("decoder", "TRAIN", "ceiling", "similarity"): (0.5, 0.6, 0.7),
        ("pictures", "TRAIN", "own", "from prior", "R@1"): (0.25, 0.5, 0.75),
    }


def test_law_a_dot_is_within_its_whiskers_and_order_is_kept():
    first, second = intervals.interval_charts(METRICS)
    assert first.title == "decoder, TRAIN, similarity"
    assert second.title == "pictures, TRAIN, own, R@1"
    assert [row.name for row in first.rows] == ["from prior", "ceiling"]
    for row in (*first.rows, *second.rows):
        assert row.x_low < row.x < row.x_high
    assert first.rows[0].x_high < first.rows[1].x_low
    assert first.zero is not None
    assert first.rows[0].x_low < first.zero < first.rows[0].x


def test_what_is_not_finite_is_not_drawn():
    values = {"a": {"b": {"mean": float("nan"), "low 95%": 0.0, "high 95%": 1.0}}}
    assert intervals.interval_charts(values) == []
