"""The report's figures as coordinates and its numbers as text: the page only draws what is computed here.

A chart's coordinates are inside a box of WIDTH x HEIGHT; y grows downwards, as in SVG.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 410, 14, 192
MAX_POINTS = 240
_LOG_RATIO = 50.0
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Series:
    """One line or outline: its name, the `x,y` pairs of an SVG polyline, and an SVG path of the points' intervals."""

    name: str
    points: str
    whiskers: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart ready to draw; with `is_filled` its series are filled down to the axis."""

    title: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    is_filled: bool = False


@dataclass(frozen=True)
class Bar:
    """A horizontal bar; `percent` is its length as a share of the longest bar."""

    label: str
    value: str
    percent: float


def number(value: float) -> str:
    """Format a number: thousands separated, fractions with three significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{_MINUS}∞")
    if value == int(value):
        text = f"{int(value):,}"
    elif abs(value) >= 999.5:
        text = f"{value:,.0f}"
    elif abs(value) >= 9.995e-4:
        text = f"{value:#.3g}".removesuffix(".")
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa}e{int(exponent)}".replace("-", _MINUS)
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text


def byte_size(num_bytes: float) -> str:
    """Format a size in the decimal unit that leaves one to three digits before the decimal point."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{number(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{number(num_bytes)} TB"


def bars(counts: Mapping[str, int]) -> list[Bar]:
    """Return one bar per entry, in the given order; the largest fills the width."""
    largest = max(counts.values(), default=0) or 1
    return [Bar(label, number(count), 100 * count / largest) for label, count in counts.items()]


def steps_chart(
    title: str, lines: Mapping[str, Sequence[tuple[int, float, float]]], x_label: str
) -> Chart | None:
    """Return a chart of named lines over a few whole numbers, which are evenly spaced on the axis; each point has an interval.

    A point is (x, value, half the width of its interval). None if there is nothing finite to draw.
    """
    names = sorted({x for line in lines.values() for x, _, _ in line})
    drawn = {
        name: np.array([(names.index(x), y, half) for x, y, half in sorted(line)], float).reshape(-1, 3)
        for name, line in lines.items()
    }
    drawn = {name: rows[np.isfinite(rows).all(1)] for name, rows in drawn.items()}
    drawn = {name: rows for name, rows in drawn.items() if len(rows)}
    if not drawn:
        return None
    whole = np.concatenate(list(drawn.values()))
    low, high = float((whole[:, 1] - whole[:, 2]).min()), float((whole[:, 1] + whole[:, 2]).max())
    y_ticks = ticks(low, high, 4)
    y_span = (min(y_ticks[0], low), max(y_ticks[-1], high))
    x_span = (-0.5, len(names) - 0.5)
    series = [
        Series(
            name,
            _points(x_positions(rows[:, 0], x_span), _y(rows[:, 1], y_span, False)),
            _whiskers(x_positions(rows[:, 0], x_span), rows[:, 1], rows[:, 2], y_span),
        )
        for name, rows in drawn.items()
    ]
    positions = x_positions(np.arange(len(names), dtype=float), x_span)
    x_marks = tuple(Tick(round(float(at), 1), str(x)) for x, at in zip(names, positions, strict=True))
    y_marks = _marks(y_ticks, _y(np.array(y_ticks), y_span, False))
    return Chart(title, tuple(series), x_marks, y_marks, x_label)


def line_chart(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str
) -> Chart | None:
    """Return a chart of named (x, y) lines; None if no line has two finite points, or if all values are equal.

    A long line is drawn through the means of equal stretches; y is logarithmic if it spans more than a factor of 50.
    """
    cleaned = {name: _thinned(*_finite(x, y)) for name, (x, y) in lines.items()}
    cleaned = {name: (x, y) for name, (x, y) in cleaned.items() if len(x) > 1}
    if not cleaned:
        return None
    xs = np.concatenate([x for x, _ in cleaned.values()])
    ys = np.concatenate([y for _, y in cleaned.values()])
    if ys.min() == ys.max():
        return None
    is_log = bool(ys.min() > 0 and ys.max() / ys.min() > _LOG_RATIO)
    x_ticks = ticks(xs.min(), xs.max(), 4)
    y_ticks = _log_ticks(ys.min(), ys.max()) if is_log else ticks(ys.min(), ys.max(), 4)
    y_span = (min(y_ticks[0], ys.min()), max(y_ticks[-1], ys.max()))
    return Chart(
        title + (", logarithmic" if is_log else ""),
        tuple(
            Series(name, _points(x_positions(x, (xs.min(), xs.max())), _y(y, y_span, is_log)))
            for name, (x, y) in cleaned.items()
        ),
        marks(x_ticks, (xs.min(), xs.max())),
        _marks(y_ticks, _y(np.array(y_ticks), y_span, is_log)),
        x_label,
    )


def histogram(title: str, series: Mapping[str, Sequence[float]], x_label: str) -> Chart | None:
    """Return the histograms of named samples over common bins, in percent of each sample; None if there is nothing finite to draw."""
    finite = {
        name: array[np.isfinite(array)]
        for name, values in series.items()
        if len(array := np.asarray(values, float))
    }
    finite = {name: array for name, array in finite.items() if len(array)}
    if not finite:
        return None
    whole = np.concatenate(list(finite.values()))
    edges = _bin_edges(float(whole.min()), float(whole.max()))
    shares = {name: 100 * np.histogram(array, edges)[0] / len(array) for name, array in finite.items()}
    y_ticks = ticks(0.0, max(share.max() for share in shares.values()), 3)
    y_span = (0.0, max(y_ticks[-1], *(share.max() for share in shares.values())))
    x_span = (edges[0], edges[-1])
    drawn = []
    for name, share in shares.items():
        x = x_positions(np.repeat(edges, 2), x_span)
        y = _y(np.concatenate([[0], np.repeat(share, 2), [0]]), y_span, False)
        drawn.append(Series(name, _points(x, y)))
    x_ticks = ticks(*x_span, 5)
    y_marks = tuple(
        Tick(tick.at, f"{tick.label} %") for tick in _marks(y_ticks, _y(np.array(y_ticks), y_span, False))
    )
    return Chart(title, tuple(drawn), marks(x_ticks, x_span), y_marks, x_label, is_filled=True)


def _finite(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Sort by x and drop values that are not finite; of a step logged twice (in a resumed run) the last entry counts."""
    last = dict(zip(x, y, strict=True))
    order = sorted(last)
    xs, ys = np.array(order, float), np.array([last[key] for key in order], float)
    finite = np.isfinite(xs) & np.isfinite(ys)
    return xs[finite], ys[finite]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers within [low, high], which is widened first if it is a single value."""
    if high <= low:
        low, high = low - abs(low) / 2 - 0.5, high + abs(high) / 2 + 0.5
    step = _round_step((high - low) / count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten around [low, high]; every second or third one if there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = -(-(last - first) // 4)
    return [10.0**power for power in range(first, last + step, step)]


def _bin_edges(low: float, high: float) -> np.ndarray:
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 32)
    return np.arange(math.floor(low / step), math.floor(high / step) + 2) * step


def x_positions(values: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Return the positions of values on an x axis that covers a span."""
    return LEFT + (values - span[0]) / ((span[1] - span[0]) or 1) * (RIGHT - LEFT)


def _y(values: np.ndarray, span: tuple[float, float], is_log: bool) -> np.ndarray:
    low, high = (math.log(span[0]), math.log(span[1])) if is_log else span
    scaled = np.log(values) if is_log else values
    return BOTTOM - (scaled - low) / ((high - low) or 1) * (BOTTOM - TOP)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _whiskers(x: np.ndarray, y: np.ndarray, reach: np.ndarray, span: tuple[float, float]) -> str:
    """Return an SVG path with a vertical line per point, as long as the point's interval."""
    upper, lower = _y(y + reach, span, False), _y(y - reach, span, False)
    return " ".join(f"M{a:.1f},{b:.1f}V{c:.1f}" for a, b, c in zip(x, upper, lower, strict=True))


def marks(values: Sequence[float], span: tuple[float, float]) -> tuple[Tick, ...]:
    """Return marks at the given values of an x axis that covers a span."""
    return _marks(values, x_positions(np.array(values), span))


def _marks(values: Sequence[float], positions: np.ndarray) -> tuple[Tick, ...]:
    return tuple(
        Tick(round(float(position), 1), _tick_label(value))
        for value, position in zip(values, positions, strict=True)
    )


def _tick_label(value: float) -> str:
    size = abs(value)
    if size >= 1e6:
        text = f"{value / 1e6:g}M"
    elif size >= 1e5:
        text = f"{value / 1e3:g}k"
    else:
        text = f"{value:,.4f}".rstrip("0").rstrip(".") if size >= 1 else f"{value:.4g}"
    return text.replace("e-0", "e-").replace("-", _MINUS)
