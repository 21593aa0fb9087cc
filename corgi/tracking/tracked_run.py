"""One tracked run as plain data, and the media that it shows in addition to its metrics."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from corgi.settings.training import TrackingSettings


@dataclass(frozen=True)
class TrackedRun:
    """What the tracker needs to know about a training, a download or a comparison.

    `name` is the name of the W&B run, `group` the name of the pipeline run it belongs to, `folder` the absolute path of
    its metric files. `config` (JSON) is stored with the W&B run.
    """

    name: str
    folder: Path
    group: str
    tracking: TrackingSettings
    config: dict[str, Any]

    @property
    def metrics_file(self) -> Path:
        """Return the file of metric lines, one JSON object per line, without times, so that a resumed run repeats the same lines."""
        return self.folder / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        """Return the file of lines with seconds and rates."""
        return self.folder / "timings.jsonl"


class Line(NamedTuple):
    """What the tracker sends at a step: metrics, seconds, pictures, histograms and tables, by name."""

    step: int
    values: dict[str, object]


@dataclass(frozen=True)
class Shown:
    """What a run shows in addition to its metrics: pictures, values for histograms, and tables, each by name."""

    pictures: dict[str, UInt8[np.ndarray, "height width 3"]] = field(default_factory=dict)
    histograms: dict[str, Float[np.ndarray, "values"]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows by the table's name; all rows of a table have the same keys."""
