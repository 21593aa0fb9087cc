"""Progress of a run as Ray metrics: stages, shards, steps and rows. Ray exports them on every node for Prometheus.

Values can be set at any time, and are published while this process is part of a cluster. `cluster/grafana.json` shows them.
"""

import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from corgi.tables.manifest import RowCounts

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

PUBLISH_EVERY_S = 5.0
"""Interval of publishing, s: Ray drops a gauge that is not set again for a while."""
WAITS, RUNS, DONE = 0, 1, 2
"""States of a stage."""


@dataclass(frozen=True)
class Measure:
    """A gauge: its name (with the prefix `ray_` in Prometheus), its meaning, and its labels in addition to `run`."""

    name: str
    meaning: str
    labels: tuple[str, ...]


STATE = Measure("corgi_stage_state", "0: the stage waits, 1: it runs, 2: it is done", ("stage",))
WORK_DONE = Measure("corgi_work_done", "Shards made or steps trained so far", ("work", "unit"))
WORK_TOTAL = Measure("corgi_work_total", "Shards or steps of the work at hand", ("work", "unit"))
ROWS = Measure("corgi_rows", "Rows of a finished stage, kept or rejected by reason", ("stage", "outcome"))

_noted: dict[tuple[Measure, tuple[str, ...]], float] = {}


def note_waiting(stages: Iterable[str]) -> None:
    """Record that stages wait."""
    for stage in stages:
        note_state(stage, WAITS)


def note_state(stage: str, state: int) -> None:
    """Record that a stage waits, runs or is done."""
    _noted[STATE, (stage,)] = state


def note_work(label: str, unit: str, done: int, total: int) -> None:
    """Record how much of one piece of work is done."""
    _noted[WORK_DONE, (label, unit)] = done
    _noted[WORK_TOTAL, (label, unit)] = total


def note_rows(stage: str, rows: RowCounts) -> None:
    """Record the rows of a finished stage."""
    for outcome, count in {"kept": rows.kept, **rows.rejected}.items():
        _noted[ROWS, (stage, outcome)] = count


@contextmanager
def published(run: str) -> Generator[None]:
    """Publish the recorded values while the block runs."""
    _noted.clear()
    ended = Event()
    thread = Thread(target=_publish_often, args=(run, ended), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _publish_often(run: str, ended: Event) -> None:
    gauges: dict[str, Gauge] = {}
    while not ended.wait(PUBLISH_EVERY_S):
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            with suppress(RuntimeError):  # the cluster has just been left
                publish(run, gauges)


def publish(run: str, gauges: "dict[str, Gauge]") -> None:
    """Set a gauge for every recorded value; `gauges` has those created before."""
    from ray.util.metrics import Gauge

    for (measure, values), value in list(_noted.items()):
        if measure.name not in gauges:
            gauges[measure.name] = Gauge(measure.name, measure.meaning, ("run", *measure.labels))
        gauges[measure.name].set(value, {"run": run, **dict(zip(measure.labels, values, strict=True))})
