"""The W&B run in addition to the metric files: a separate thread and a bounded queue.

If W&B is slow, down or broken, the run is not affected and no line of metrics.jsonl is lost.
"""

import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corgi.tables.store import write_file
from corgi.tracking.environment import Mode
from corgi.tracking.offline import await_exit, masked, settled_steps
from corgi.tracking.tracked_run import Line, Shown, TrackedRun

if TYPE_CHECKING:
    import wandb

_QUEUE_LINES = 1000
FINISH_TIMEOUT_S = 30.0
FINISH_LEAST_S = 5.0
_FINISH_SHARE = 0.02
"""Share of a run's time that its end waits at most for a slow W&B, within the limits of the seconds above."""
_FLUSH_S = 1.0
"""Interval at which W&B's service writes to its file, s: what it has not written is lost if it dies, or the next attempt waits for it."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Picture:
    pixels: np.ndarray


@dataclass(frozen=True)
class _Histogram:
    values: np.ndarray


@dataclass(frozen=True)
class _Table:
    rows: list[dict[str, Any]]


def media(shown: Shown) -> dict[str, object]:
    """Return pictures, histograms and tables under W&B's keys; the sending thread converts them to W&B's types."""
    return {
        **{f"pictures/{name}": _Picture(picture) for name, picture in shown.pictures.items()},
        **{f"histograms/{name}": _Histogram(values) for name, values in shown.histograms.items()},
        **{f"tables/{name}": _Table(rows) for name, rows in shown.tables.items() if rows},
    }


class Sender:
    """Passes lines to W&B from a thread; the first error is logged and ends the sending, but never the run."""

    def __init__(self, run: TrackedRun, mode: Mode, earlier: Sequence[Line]) -> None:
        """Start sending; `earlier` are lines of previous attempts, which are sent again if W&B does not have them."""
        self._lines: queue.Queue[list[Line] | None] = queue.Queue(_QUEUE_LINES)
        self._num_dropped = 0
        self._mode: Mode = mode
        self._started, self._opened = time.monotonic(), False
        arguments = (run, run_id(run), earlier)
        self._thread = threading.Thread(target=self._send, args=arguments, name="wandb", daemon=True)
        self._thread.start()

    def put(self, lines: list[Line]) -> None:
        """Queue lines for sending; they are dropped if W&B is too slow."""
        try:
            self._lines.put_nowait(lines)
        except queue.Full:
            self._num_dropped += len(lines)

    def close(self) -> None:
        """End the W&B run after the queued lines; the wait is bounded."""
        end = time.monotonic() + patience_s(self._mode, self._opened, time.monotonic() - self._started)
        try:
            self._lines.put(None, timeout=max(0.0, end - time.monotonic()) if self._thread.is_alive() else 0)
        except queue.Full:
            self._num_dropped += 1
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive() or self._num_dropped:
            _log.warning("W&B did not receive every line; metrics.jsonl has all of them")

    def _send(self, run: TrackedRun, identity: str, earlier: Sequence[Line]) -> None:
        try:
            wanted = {line.step for line in earlier}
            kept = settled_steps(run.folder, wanted) if self._mode == "offline" and earlier else set()
            folder = _attempt_folder(run)
            opened = _open_run(run, identity, self._mode, folder)
            self._opened = True
            if self._mode == "online" and earlier:
                kept = range(opened.step)
            for line in earlier:
                if line.step not in kept:
                    opened.log(_as_media(line), step=line.step)
            while (lines := self._lines.get()) is not None:
                for line in lines:
                    opened.log(_as_media(line), step=line.step)
            opened.finish()
            if self._mode == "offline":
                await_exit(folder, FINISH_TIMEOUT_S)
        except Exception as error:  # whatever the tracker does, the run continues
            _log.warning(
                "W&B is off for %s: %s; metrics.jsonl is still written", run.name, _without_key(error)
            )


def patience_s(mode: Mode, opened: bool, run_s: float) -> float:
    """Return how long the end of a run may wait, s: offline for this machine's disk, online for a server that may be slow or down."""
    if mode != "online":
        return FINISH_TIMEOUT_S
    return min(FINISH_TIMEOUT_S, max(_FINISH_SHARE * run_s, FINISH_LEAST_S if opened else 0.0))


def _as_media(line: Line) -> dict[str, object]:
    """Return a line's values and its step, with pictures, histograms and tables as W&B's types."""
    import wandb

    kinds: dict[type, Callable[[Any], Any]] = {
        _Picture: lambda kept: wandb.Image(kept.pixels),
        _Histogram: lambda kept: wandb.Histogram(kept.values.tolist()),
        _Table: lambda kept: wandb.Table(list(kept.rows[0]), [list(row.values()) for row in kept.rows]),
    }
    values = {name: kinds.get(type(value), lambda kept: kept)(value) for name, value in line.values.items()}
    return {"step": line.step, **values}


def run_id(run: TrackedRun) -> str:
    """Return the W&B run id, which all attempts share and which is stored in the run's folder."""
    path = run.folder / "wandb.json"
    if not path.exists():
        group = run.tracking.group or run.group
        write_file(path, json.dumps({"id": uuid.uuid4().hex[:16], "group": group}).encode())
    return json.loads(path.read_text())["id"]


def _attempt_folder(run: TrackedRun) -> Path:
    """Return a new numbered folder, so that the order of attempts does not depend on a clock."""
    root = run.folder / "wandb"
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if path.name.isdigit()), default=-1) + 1
    folder = root / f"{number:04d}"
    folder.mkdir()
    return folder


def _open_run(run: TrackedRun, identity: str, mode: Mode, folder: Path) -> "wandb.Run":
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves this machine
    import wandb

    tracking = run.tracking
    quiet = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        x_disable_stats=True,
        init_timeout=60,
        login_timeout=10,
        x_transaction_log_flush_interval=_FLUSH_S,
    )
    if tracking.server:
        quiet.base_url = tracking.server
    opened = wandb.init(
        project=tracking.project,
        entity=tracking.entity or None,
        id=identity,
        name=run.name,
        group=tracking.group or run.group,
        tags=tracking.tags or None,
        dir=str(folder),
        mode=mode,
        resume="allow",
        config=run.config,
        settings=quiet,
    )
    opened.define_metric("*", step_metric="step")
    return opened


def _without_key(error: Exception) -> str:
    return masked(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
