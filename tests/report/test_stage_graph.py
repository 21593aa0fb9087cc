"""The graph of the stages: nothing is lost when lines are left out, and no box hides another."""

from itertools import pairwise

import pytest

from corgi.report import stage_graph
from corgi.report.committed import Committed
from tests.support import tables

FLOW = {
    "plan": [],
    "download": ["plan"],
    "embed": ["download"],
    "curate": ["download", "embed"],
    "shift": ["download", "embed", "curate"],
    "pack": ["embed", "curate"],
    "prior": ["pack", "shift"],
}


def reached(inputs: dict[str, list[str]], stage: str) -> set[str]:
    return {far for name in inputs[stage] for far in {name, *reached(inputs, name)}}


def test_law_lines_that_are_left_out_follow_from_the_others():
    kept = stage_graph.reduced(FLOW)
    assert all(reached(kept, stage) == reached(FLOW, stage) for stage in FLOW)
    assert kept["shift"] == ["curate"]
    assert kept["prior"] == ["pack", "shift"]
    assert sum(map(len, kept.values())) < sum(map(len, FLOW.values()))


def test_law_boxes_stand_apart_and_every_line_goes_down(tmp_path):
    drawn = stage_graph.graph(Committed(tables.tiny_run(tmp_path)))
    rows: dict[float, list[float]] = {}
    for box in drawn.boxes:
        assert 0 <= box.x <= drawn.width - stage_graph.BOX_WIDTH
        assert 0 <= box.y <= drawn.height - stage_graph.BOX_HEIGHT
        rows.setdefault(box.y, []).append(box.x)
    assert all(b - a >= stage_graph.BOX_WIDTH for row in rows.values() for a, b in pairwise(sorted(row)))
    for line in drawn.lines:
        start, end = line.split()[0], line.split()[-1]
        assert float(start.split(",")[1]) < float(end.split(",")[1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.5, "0.500 s"),
        (59.4, "59.4 s"),
        (60, "1 min"),
        (3599, "1 h 0 min"),
        (7265, "2 h 1 min"),
    ],
)
def test_durations(seconds, text):
    assert stage_graph.duration(seconds) == text
