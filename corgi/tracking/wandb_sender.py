"""The W&B run beside the metric files: a thread of its own and a bounded queue.

Slow, down or broken, W&B costs the run nothing and loses no line of metrics.jsonl.
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
"""Of the time a run took: waiting for a slow W&B at its end costs no more, or the seconds above."""
_FLUSH_S = 1.0
"""How often W&B's service writes to its file: what it has not written is lost with it, or awaited by the next attempt."""
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
    """Return pictures, histograms and tables under W&B's keys; they become W&B's own kinds in the sending thread."""
    return {
        **{f"pictures/{name}": _Picture(picture) for name, picture in shown.pictures.items()},
        **{f"histograms/{name}": _Histogram(values) for name, values in shown.histograms.items()},
        **{f"tables/{name}": _Table(rows) for name, rows in shown.tables.items() if rows},
    }


class Sender:
    """Hands lines to W&B from a thread; the first error is logged and ends the sending, never the run."""

    def __init__(self, run: TrackedRun, mode: Mode, earlier: Sequence[Line]) -> None:
        """Start sending; `earlier` lines are those of former attempts, sent again where W&B does not have them."""
        self._lines: queue.Queue[list[Line] | None] = queue.Queue(_QUEUE_LINES)
        self._num_dropped = 0
        self._mode: Mode = mode
        self._started, self._opened = time.monotonic(), False
        arguments = (run, run_id(run), earlier)
        self._thread = threading.Thread(target=self._send, args=arguments, name="wandb", daemon=True)
        self._thread.start()

    def put(self, lines: list[Line]) -> None:
        """Hand lines over; they are dropped where W&B is too slow to take them."""
        try:
            self._lines.put_nowait(lines)
        except queue.Full:
            self._num_dropped += len(lines)

    def close(self) -> None:
        """End the run after the lines handed over; waits a bounded time."""
        end = time.monotonic() + patience_s(self._mode, self._opened, time.monotonic() - self._started)
        try:
            self._lines.put(None, timeout=max(0.0, end - time.monotonic()) if self._thread.is_alive() else 0)
        except queue.Full:
            self._num_dropped += 1
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive() or self._num_dropped:
            _log.warning("W&B did not take every line; metrics.jsonl has them all")

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
        except Exception as error:  # whatever a tracker does, the run goes on
            _log.warning("W&B is off for %s: %s; metrics.jsonl goes on", run.name, _without_key(error))


def patience_s(mode: Mode, opened: bool, run_s: float) -> float:
    """Return how long the end may wait: offline for this machine's disk, online for a server that may be slow or gone."""
    if mode != "online":
        return FINISH_TIMEOUT_S
    return min(FINISH_TIMEOUT_S, max(_FINISH_SHARE * run_s, FINISH_LEAST_S if opened else 0.0))


def _as_media(line: Line) -> dict[str, object]:
    """Return a line's values and its step, with pictures, histograms and tables as W&B's own kinds."""
    import wandb

    kinds: dict[type, Callable[[Any], Any]] = {
        _Picture: lambda kept: wandb.Image(kept.pixels),
        _Histogram: lambda kept: wandb.Histogram(kept.values.tolist()),
        _Table: lambda kept: wandb.Table(list(kept.rows[0]), [list(row.values()) for row in kept.rows]),
    }
    values = {name: kinds.get(type(value), lambda kept: kept)(value) for name, value in line.values.items()}
    return {"step": line.step, **values}


def run_id(run: TrackedRun) -> str:
    """Return the one W&B run id of all attempts, kept in the run's folder."""
    path = run.folder / "wandb.json"
    if not path.exists():
        group = run.tracking.group or run.group
        write_file(path, json.dumps({"id": uuid.uuid4().hex[:16], "group": group}).encode())
    return json.loads(path.read_text())["id"]


def _attempt_folder(run: TrackedRun) -> Path:
    """Return a new numbered folder: the order of attempts is in their names, not in a clock's."""
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
