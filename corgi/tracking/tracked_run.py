"""One tracked run as plain data, and what it shows beside its figures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from corgi.settings.training import TrackingSettings


@dataclass(frozen=True)
class TrackedRun:
    """What the tracker must know of a training, a download or a comparison.

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
        """Return the file of metric lines, one JSON object per line, without seconds: a resumed run repeats them."""
        return self.folder / "metrics.jsonl"

    @property
    def timings_file(self) -> Path:
        """Return the file of lines that hold seconds and rates."""
        return self.folder / "timings.jsonl"


class Line(NamedTuple):
    """What the tracker sends at a step: figures, seconds, pictures, histograms and tables, by name."""

    step: int
    values: dict[str, object]


@dataclass(frozen=True)
class Shown:
    """What a run shows beside its figures: pictures by name, values whose distribution is of interest, tables."""

    pictures: dict[str, UInt8[np.ndarray, "height width 3"]] = field(default_factory=dict)
    histograms: dict[str, Float[np.ndarray, "values"]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows by name, all of one table with the same keys."""
