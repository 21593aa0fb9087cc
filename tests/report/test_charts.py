import math
import re

import numpy as np
import pytest

from corgi.report import charts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (189.0, "189"),
        (0.5, "0.500"),
        (12.345, "12.3"),
        (123.4, "123"),
        (999.7, "1,000"),
        (12345.6, "12,346"),
        (0.0012345, "0.00123"),
        (2.5e-5, "2.50e\N{MINUS SIGN}5"),
        (-0.25, "\N{MINUS SIGN}0.250"),
        (True, "yes"),
        (math.nan, "not a number"),
    ],
)
def test_numbers_have_separators_and_three_significant_digits(value, text):
    assert charts.number(value) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(12, "12 B"), (1234, "1.23 kB"), (5.1e7, "51 MB"), (2.5e12, "2.50 TB")]
)
def test_byte_sizes(num_bytes, text):
    assert charts.byte_size(num_bytes) == text


def points(series: charts.Series) -> np.ndarray:
    return np.array([[float(part) for part in pair.split(",")] for pair in series.points.split()])


def inside(xy: np.ndarray) -> bool:
    low, high = (charts.LEFT - 0.1, charts.TOP - 0.1), (charts.RIGHT + 0.1, charts.BOTTOM + 0.1)
    return bool((xy >= low).all() and (xy <= high).all())


@pytest.mark.parametrize("ys", [[1.0, 2.0, 4.0], [-3.0, 0.0, 5.0], [1e-6, 1.0, 1e5], [1e9, 1.5e9, 1.2e9]])
def test_a_line_keeps_order_and_stays_in_the_box(ys):
    chart = charts.line_chart("loss", {"a": ([0, 10, 20], ys)}, "by step")
    assert chart is not None
    drawn = points(chart.series[0])
    assert inside(drawn)
    assert list(np.argsort(-drawn[:, 1])) == list(np.argsort(ys))


def test_a_wide_span_is_logarithmic_and_says_so():
    chart = charts.line_chart("loss", {"a": ([0, 1, 2], [1.0, 10.0, 100.0])}, "by step")
    assert chart is not None
    y = points(chart.series[0])[:, 1]
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.2)
    assert "logarithmic" in chart.title


def test_a_step_logged_twice_counts_as_logged_last():
    chart = charts.line_chart("loss", {"a": ([0, 10, 10, 20], [1.0, 9.0, 2.0, 3.0])}, "by step")
    assert chart is not None
    assert len(points(chart.series[0])) == 3
    assert charts.line_chart("loss", {"a": ([0, 10, 20], [1.0, 2.0, 3.0])}, "by step") == chart


def test_what_cannot_be_drawn_is_left_out():
    assert charts.line_chart("loss", {"a": ([0], [1.0])}, "") is None
    assert charts.line_chart("loss", {"a": ([0, 1], [math.nan, 1.0])}, "") is None
    assert charts.line_chart("lr", {"a": ([0, 1], [0.1, 0.1])}, "") is None
    assert charts.histogram("x", {"a": [], "b": [math.nan]}, "") is None


def test_a_long_line_is_thinned_without_moving_its_mean():
    x = np.arange(10_000.0)
    chart = charts.line_chart("loss", {"a": (list(x), list(x % 2))}, "")
    assert chart is not None
    drawn = points(chart.series[0])
    assert len(drawn) == charts.MAX_POINTS


@pytest.mark.parametrize("values", [[5.0], [1, 2, 3, 3], list(np.linspace(-1, 1, 500)), [32, 64, 4096]])
def test_a_histogram_covers_every_value_and_its_shares_sum_to_all(values):
    chart = charts.histogram("sizes", {"a": values}, "px")
    assert chart is not None
    drawn = points(chart.series[0])
    assert inside(drawn)
    first, second = (float(t.label.split()[0].replace(",", "")) for t in chart.y_ticks[:2])
    percent = (second - first) / (chart.y_ticks[0].at - chart.y_ticks[1].at)
    heights = (charts.BOTTOM - drawn[1:-1:2, 1]) * percent
    assert heights.sum() == pytest.approx(100, abs=0.1 * percent * len(heights))


def test_bars_are_shares_of_the_longest():
    drawn = charts.bars({"a": 50, "b": 200})
    assert [bar.percent for bar in drawn] == [25, 100]
    assert charts.bars({"a": 0})[0].percent == 0


def test_ticks_are_round_and_within():
    chart = charts.line_chart("x", {"a": ([0, 1980], [0.0, 1e-3])}, "")
    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["0", "500", "1,000", "1,500"]
    assert all(re.fullmatch(r"0(\.000\d+)?|0\.001", tick.label) for tick in chart.y_ticks)


def test_law_a_whisker_reaches_as_far_up_as_down_and_stays_in_the_box():
    chart = charts.steps_chart(
        "score", {"a": [(2, 1.0, 0.5), (64, 3.0, 0.25)], "b": [(8, 2.0, 0.0)]}, "by steps"
    )
    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["2", "8", "64"]
    drawn = points(chart.series[0])
    assert inside(drawn)
    ends = [
        [float(part) for part in re.split("[,V]", whisker)[1:]]
        for whisker in chart.series[0].whiskers.split()
    ]
    for (_, y), (upper, lower) in zip(drawn, ends, strict=True):
        assert upper < y < lower
        assert lower - y == pytest.approx(y - upper, abs=0.2)
        assert upper >= charts.TOP - 0.1
        assert lower <= charts.BOTTOM + 0.1


def test_steps_without_anything_finite_have_no_chart():
    assert charts.steps_chart("score", {"a": [(2, math.nan, 0.0)]}, "") is None
