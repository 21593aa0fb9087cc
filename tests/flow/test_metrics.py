"""A run's progress as Ray metrics: what is noted is published, with the run's name, and drawn by the dashboard file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from corgi.flow import metrics, screen
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Reason

DASHBOARD = Path(__file__).resolve().parents[2] / "cluster" / "grafana.json"
MEASURES = (metrics.STATE, metrics.WORK_DONE, metrics.WORK_TOTAL, metrics.ROWS)


class Gauge:
    """Keeps what it was set to."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self.name, self.labels, self.values = name, tag_keys, dict[tuple[str, ...], float]()

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.labels)
        self.values[tuple(tags[label] for label in self.labels)] = value


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("ray.util.metrics.Gauge", Gauge)
    monkeypatch.setattr(metrics, "_noted", {})
    return {}


def test_bars_stages_and_rows_are_published_under_the_runs_name(gauges: dict[str, Any]) -> None:
    metrics.note_state("download", metrics.RUNS)
    metrics.note_rows("plan", RowCounts(rows_in=5, kept=3, rejected={Reason.DNS: 2}))
    with screen.bar("download", 4, "shard") as bar:
        bar.reach(3)
        metrics.publish("laion", gauges)
    assert {name: gauge.values for name, gauge in gauges.items()} == {
        "corgi_stage_state": {("laion", "download"): 1},
        "corgi_rows": {("laion", "plan", "kept"): 3, ("laion", "plan", "dns"): 2},
        "corgi_work_done": {("laion", "download", "shard"): 3},
        "corgi_work_total": {("laion", "download", "shard"): 4},
    }


def test_values_are_published_again_and_again_by_one_gauge_each(gauges: dict[str, Any]) -> None:
    metrics.note_work("prior", "step", 1, 9)
    metrics.publish("laion", gauges)
    first = gauges["corgi_work_done"]
    metrics.note_work("prior", "step", 2, 9)
    metrics.publish("laion", gauges)
    assert gauges["corgi_work_done"] is first
    assert first.values == {("laion", "prior", "step"): 2}


def test_without_a_cluster_nothing_is_published(
    gauges: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(metrics, "PUBLISH_EVERY_S", 0.01)
    monkeypatch.setattr(metrics, "publish", lambda run, made: pytest.fail("nobody would hear it"))
    with metrics.published("laion"):
        metrics.note_work("prior", "step", 1, 9)


def test_law_the_dashboard_asks_for_every_measure_and_for_no_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"ray_(corgi_\w+)", query)}
    assert asked == {measure.name for measure in MEASURES}
    labels = {label for query in queries for label in re.findall(r"by \(([^)]*)\)", query)}
    known = {"run", *(label for measure in MEASURES for label in measure.labels)}
    assert {label.strip() for group in labels for label in group.split(",")} <= known
