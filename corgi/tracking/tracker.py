"""The tracker of a run: it always writes metrics.jsonl, and sends to Weights & Biases if enabled; on rank 0 only."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from corgi.storage.errors import storage_full
from corgi.storage.files import sync
from corgi.tables.store import write_file
from corgi.tracking.environment import mode_here, with_environment
from corgi.tracking.tracked_run import Line, Shown, TrackedRun
from corgi.tracking.wandb_sender import Sender, media

VAL = "val/"
"""Prefix of the metrics on val in a line of metrics."""


class Tracker:
    """The metric files of one run, and its W&B run."""

    def __init__(self, run: TrackedRun, step: int) -> None:
        """Continue after `step`: later lines, written by an attempt that died, are removed.

        Raises:
            SettingsError: WANDB_MODE is none of W&B's modes.

        """
        self.run = dataclasses.replace(run, tracking=with_environment(run.tracking))
        self.pictures = run.folder / "pictures"
        for path in (run.metrics_file, run.timings_file):
            _cut(path, step)
        self._mode = mode_here(self.run.tracking)
        self._sender = None
        if self._mode != "disabled":
            self._sender = Sender(self.run, self._mode, _lines_until(run, step))
        self._held: list[Line] = []

    def log(
        self, step: int, values: dict[str, float | None], timings: dict[str, float] | None = None
    ) -> None:
        """Write one line of metrics; seconds go to timings.jsonl, so that metrics.jsonl repeats exactly."""
        _append(
            self.run.metrics_file, {"step": step, **{name: _finite(value) for name, value in values.items()}}
        )
        if timings:
            _append(self.run.timings_file, {"step": step, **timings})
        self._send(Line(step, {**values, **{f"time/{k}": v for k, v in (timings or {}).items()}}))

    def show(self, step: int, shown: Shown) -> None:
        """Save pictures as PNG next to the metrics, and send pictures, histograms and tables to W&B."""
        from PIL import Image

        for name, picture in shown.pictures.items():
            self.pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(self.pictures / f"{step:09d}-{name}.png")
        if sent := media(shown):
            self._send(Line(step, sent))

    def commit(self) -> None:
        """Make the lines so far durable and pass lines that were held back to W&B, before a checkpoint that relies on them is committed."""
        if self.run.metrics_file.exists():
            sync(self.run.metrics_file)
        if self._sender is not None:
            self._sender.put(self._held)
        self._held = []

    def finish(self) -> None:
        """Close the W&B run; the wait for it is bounded."""
        if self._sender is not None:
            self._sender.close()

    def _send(self, line: Line) -> None:
        """Send a line at once if online; offline, lines wait for the next checkpoint, from which a restart would continue."""
        if self._sender is not None and self._mode == "online":
            self._sender.put([line])
        elif self._sender is not None:
            self._held.append(line)


def val_figures(metrics_file: Path) -> dict[int, dict[str, float]]:
    """Return the metrics on val by the step at which they were measured; a line truncated by a kill is skipped."""
    found: dict[int, dict[str, float]] = {}
    for text in metrics_file.read_text().splitlines() if metrics_file.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        told = {name.removeprefix(VAL): value for name, value in line.items() if name.startswith(VAL)}
        if told:
            found[line["step"]] = {name: value for name, value in told.items() if value is not None}
    return found


def _lines_until(run: TrackedRun, step: int) -> list[Line]:
    """Return the lines up to a step, as they should have been sent."""
    lines: dict[int, Line] = {}
    for path, prefix in ((run.metrics_file, ""), (run.timings_file, "time/")) if step else ():
        for text in path.read_text().splitlines() if path.exists() else []:
            line = json.loads(text)
            if (at := line.pop("step")) <= step:
                lines.setdefault(at, Line(at, {})).values.update({f"{prefix}{k}": v for k, v in line.items()})
    return [lines[at] for at in sorted(lines)]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _append(path: Path, line: Mapping[str, object]) -> None:
    try:
        with path.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
    except OSError as error:
        storage_full(error, path)


def _cut(path: Path, step: int) -> None:
    """Keep the complete lines up to a step; remove what a killed attempt wrote after its last checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:  # the last line of an attempt that was killed while writing
            continue
    write_file(path, "".join(kept).encode())
