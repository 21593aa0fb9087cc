"""Measures over several trainings: means, Student's intervals, and nothing that is not a measure of all of them."""

import numpy as np
import pytest
from scipy import stats

from corgi.evaluation.over_seeds import over_seeds, told


def test_law_the_interval_is_students_over_trainings() -> None:
    values = [0.31, 0.35, 0.30]
    mean, reach = np.mean(values), stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    found = over_seeds([{"prior": {"shifted": {"8": {"cosine": value}}}} for value in values])
    assert found == {"prior": {"shifted": {"8": {"cosine": told(values)}}}}
    numbers = told(values).replace("(", "").replace(")", "").replace("to ", "").split()
    assert [float(number) for number in numbers] == pytest.approx(
        [mean, mean - reach, mean + reach], rel=1e-3
    )


def test_what_is_no_measure_of_every_training_is_left_out() -> None:
    first = {
        "a": 1.0,
        "text": "x",
        "notes": ["n"],
        "flag": True,
        "own, low 95%": 0.2,
        "part": {"b": 2},
        "none": None,
    }
    second = {"a": 1.0, "text": "y", "part": {"c": 3}, "only here": 4}
    assert over_seeds([first, second]) == {"a": "1"}


def test_one_training_has_means_without_intervals() -> None:
    assert over_seeds([{"a": 0.123456}]) == {"a": "0.1235"}
