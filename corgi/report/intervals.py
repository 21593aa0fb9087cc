"""Charts of the measures with 95 % intervals among nested metrics, as dots with whiskers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from corgi.report import charts

ROW_HEIGHT, HEADROOM = 52, 4
_LOW, _HIGH = "low 95%", "high 95%"


@dataclass(frozen=True)
class Measured:
    """A value and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A drawn measure: its name, its value as text, the x positions of the dot and of the interval's bounds, and the y position."""

    name: str
    text: str
    x: float
    x_low: float
    x_high: float
    y: float


@dataclass(frozen=True)
class IntervalChart:
    """A chart of measures on one axis; `zero` is the position of 0, None if 0 is outside the chart."""

    title: str
    rows: tuple[Row, ...]
    x_ticks: tuple[charts.Tick, ...]
    zero: float | None
    height: float


def interval_charts(values: Mapping[str, object]) -> list[IntervalChart]:
    """Return one chart for each group of nested metrics whose members have a measure with an interval."""
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for path, found in measured(values):
        *above, member, measure = path
        groups.setdefault((*above, measure), []).append(Measured(member, found.value, found.low, found.high))
    return [_chart(", ".join(path), rows) for path, rows in groups.items()]


def measured(
    values: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Measured]]:
    """Yield every measure that has an interval, with its path; the last part of the path is the measure's name.

    Both forms are read: `{"mean", "low 95%", "high 95%"}` and `{"X", "X, low 95%", "X, high 95%"}`.
    """
    if len(path) > 1 and {"mean", _LOW, _HIGH} <= set(values):
        yield from _one(path, values["mean"], values[_LOW], values[_HIGH])
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from measured(value, (*path, str(name)))
        elif path and f"{name}, {_LOW}" in values:
            bounds = values[f"{name}, {_LOW}"], values.get(f"{name}, {_HIGH}")
            yield from _one((*path, name), value, *bounds)


def _one(
    path: tuple[str, ...], value: object, low: object, high: object
) -> Iterator[tuple[tuple[str, ...], Measured]]:
    numbers = [value, low, high]
    if all(isinstance(one, (int, float)) and np.isfinite(one) for one in numbers):
        yield path, Measured(path[-1], *(float(str(one)) for one in numbers))


def _chart(title: str, rows: Sequence[Measured]) -> IntervalChart:
    span = (min(row.low for row in rows), max(row.high for row in rows))
    ticks = charts.ticks(*span, 5)
    span = (min(span[0], ticks[0]), max(span[1], ticks[-1]))

    def x(value: float) -> float:
        return round(float(charts.x_positions(np.array([value]), span)[0]), 1)

    drawn = [
        Row(
            row.name,
            f"{charts.number(row.value)} ({charts.number(row.low)} to {charts.number(row.high)})",
            x(row.value),
            x(row.low),
            x(row.high),
            HEADROOM + (number + 1) * ROW_HEIGHT - 10,
        )
        for number, row in enumerate(rows)
    ]
    zero = x(0.0) if span[0] < 0 < span[1] else None
    return IntervalChart(
        title, tuple(drawn), charts.marks(ticks, span), zero, HEADROOM + len(rows) * ROW_HEIGHT
    )
