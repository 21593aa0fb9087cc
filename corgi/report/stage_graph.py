"""The stages of a run as a drawing: boxes with rows and times, and lines from each stage's inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corgi.report import charts
from corgi.report.committed import Committed

BOX_WIDTH, BOX_HEIGHT = 132, 54
_GAP_X, _GAP_Y = 14, 26


@dataclass(frozen=True)
class Box:
    """A stage: its name, the rows it kept and its time as text, and the upper left corner of its box."""

    stage: str
    rows: str
    time: str
    x: float
    y: float


@dataclass(frozen=True)
class Graph:
    """The drawing: its size, its boxes, and its lines as SVG paths."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]


def graph(run: Committed) -> Graph:
    """Return the drawing of the stages that are complete; inputs are above the stages that read them."""
    inputs = {
        stage: [name for name in manifest.inputs if name in run.stages]
        for stage, manifest in run.stages.items()
    }
    inputs = {stage: inputs[stage] for stage in run.in_order()}
    rows = _rows(inputs)
    widest = max(map(len, rows), default=0)
    width = widest * BOX_WIDTH + max(0, widest - 1) * _GAP_X
    boxes = {
        stage: _box(run, stage, _left(width, len(row), column), number * (BOX_HEIGHT + _GAP_Y))
        for number, row in enumerate(rows)
        for column, stage in enumerate(row)
    }
    lines = [_line(boxes[name], boxes[stage]) for stage, names in reduced(inputs).items() for name in names]
    height = len(rows) * BOX_HEIGHT + max(0, len(rows) - 1) * _GAP_Y
    return Graph(width, height, tuple(boxes.values()), tuple(lines))


def duration(seconds: float | None) -> str:
    """Format a time in units that suit its length; a dash if it is not known."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{charts.number(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def reduced(inputs: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the inputs of each stage without those from which another of its inputs is made."""
    behind: dict[str, set[str]] = {}
    kept: dict[str, list[str]] = {}
    for stage in _by_depth(inputs):
        behind[stage] = {far for name in inputs[stage] for far in {name, *behind[name]}}
        implied = {far for name in inputs[stage] for far in behind[name]}
        kept[stage] = [name for name in inputs[stage] if name not in implied]
    return kept


def _rows(inputs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the stages in rows, by the length of the longest path above them."""
    depth = _depths(inputs)
    rows: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for stage in inputs:
        rows[depth[stage]].append(stage)
    return rows


def _by_depth(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    depth = _depths(inputs)
    return sorted(inputs, key=lambda stage: depth[stage])


def _depths(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    known: dict[str, int] = {}

    def depth(stage: str) -> int:
        if stage not in known:
            known[stage] = max((depth(name) + 1 for name in inputs[stage]), default=0)
        return known[stage]

    return {stage: depth(stage) for stage in inputs}


def _left(width: float, columns: int, column: int) -> float:
    used = columns * BOX_WIDTH + (columns - 1) * _GAP_X
    return (width - used) / 2 + column * (BOX_WIDTH + _GAP_X)


def _box(run: Committed, stage: str, x: float, y: float) -> Box:
    manifest = run.stages[stage]
    return Box(stage, f"{charts.number(manifest.rows.kept)} rows", duration(manifest.seconds), x, y)


def _line(upper: Box, lower: Box) -> str:
    """Return a curve from the middle of a box's lower edge to the middle of another's upper edge."""
    x0, y0 = upper.x + BOX_WIDTH / 2, upper.y + BOX_HEIGHT
    x1, y1 = lower.x + BOX_WIDTH / 2, lower.y
    bend = min(_GAP_Y, y1 - y0)
    return f"M{x0:g},{y0:g} C{x0:g},{y0 + bend:g} {x1:g},{y1 - bend:g} {x1:g},{y1:g}"
