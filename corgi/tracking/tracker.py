"""What a training shows: metrics.jsonl always, Weights & Biases beside it; rank 0 only.

W&B is fed by a thread of its own through a bounded queue: slow, down or broken, it costs the training nothing
and loses no line of metrics.jsonl.
"""

import json
import logging
import math
import netrc
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from corgi.settings.errors import ClusterError
from corgi.settings.section import digest
from corgi.storage.errors import storage_full
from corgi.tables.store import write_file
from corgi.training.training import Training

if TYPE_CHECKING:  # stages that train nothing track too, and need no torch for it
    from corgi.training.objective import Shown

_HOST = "api.wandb.ai"
_QUEUE_LINES = 1000
_FINISH_TIMEOUT_S = 30.0
_FINISH_LEAST_S = 5.0
_FINISH_SHARE = 0.02
"""Of the time a training took: waiting for a slow W&B at its end costs no more, or the seconds above."""
_LOG_BLOCK, _LOG_HEADER = 32 * 1024, 7
_LOG_WHOLE, _LOG_LAST = 1, 4
_log = logging.getLogger(__name__)


class Tracker:
    """The metric files of one training, and its one W&B run."""

    def __init__(self, training: Training, step: int) -> None:
        """Go on after `step`: later lines, written by an attempt that died, are cut off."""
        self.metrics = training.metrics_file
        self.timings = training.path / "timings.jsonl"
        self.pictures = training.path / "pictures"
        for path in (self.metrics, self.timings):
            _cut(path, step)
        self._mode = _mode(training.tracking.mode)
        self._sender = None
        if self._mode != "disabled":
            self._sender = _Sender(training, run_id(training), self._mode, _lines_until(training, step))
        self._held: list[dict[str, Any]] = []

    def log(
        self, step: int, values: dict[str, float | None], timings: dict[str, float] | None = None
    ) -> None:
        """Write one line of metrics; seconds go to timings.jsonl, so that metrics.jsonl repeats exactly."""
        _append(self.metrics, {"step": step, **{name: _finite(value) for name, value in values.items()}})
        if timings:
            _append(self.timings, {"step": step, **timings})
        self._send({"step": step, **values, **{f"time/{k}": v for k, v in (timings or {}).items()}})

    def show(self, step: int, shown: "Shown") -> None:
        """Keep pictures as PNG beside the metrics and send them, histograms and tables to W&B."""
        from PIL import Image

        for name, picture in shown.pictures.items():
            self.pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(self.pictures / f"{step:09d}-{name}.png")
        media = {f"pictures/{name}": _Picture(picture) for name, picture in shown.pictures.items()}
        histograms = {f"histograms/{name}": _Histogram(values) for name, values in shown.histograms.items()}
        tables = {f"tables/{name}": _Table(rows) for name, rows in shown.tables.items() if rows}
        if media or histograms or tables:
            self._send({"step": step, **media, **histograms, **tables})

    def commit(self) -> None:
        """Make the lines so far durable and hand those held back to W&B: a checkpoint that counts on them comes next."""
        if self.metrics.exists():
            _sync(self.metrics)
        if self._sender is not None:
            self._sender.put(self._held)
        self._held = []

    def finish(self) -> None:
        """Close the W&B run; waits for it a bounded time."""
        if self._sender is not None:
            self._sender.close()

    def _send(self, line: dict[str, Any]) -> None:
        """Send a line at once when online; offline nobody watches, so lines wait for the checkpoint a restart goes on from."""
        if self._sender is not None and self._mode == "online":
            self._sender.put([line])
        elif self._sender is not None:
            self._held.append(line)


@dataclass(frozen=True)
class _Picture:
    pixels: np.ndarray


@dataclass(frozen=True)
class _Histogram:
    values: np.ndarray


@dataclass(frozen=True)
class _Table:
    rows: list[dict[str, Any]]


class _Sender:
    """Hands lines to W&B from a thread; the first error is logged and ends the sending, never the training."""

    def __init__(self, training: Training, identity: str, mode: str, earlier: list[dict[str, Any]]) -> None:
        self._lines: queue.Queue[list[dict[str, Any]] | None] = queue.Queue(_QUEUE_LINES)
        self._num_dropped = 0
        self._mode, self._started, self._opened = mode, time.monotonic(), False
        arguments = (training, identity, earlier)
        self._thread = threading.Thread(target=self._send, args=arguments, name="wandb", daemon=True)
        self._thread.start()

    def put(self, lines: list[dict[str, Any]]) -> None:
        try:
            self._lines.put_nowait(lines)
        except queue.Full:
            self._num_dropped += len(lines)

    def close(self) -> None:
        end = time.monotonic() + self._patience_s()
        try:
            self._lines.put(None, timeout=max(0.0, end - time.monotonic()) if self._thread.is_alive() else 0)
        except queue.Full:
            self._num_dropped += 1
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive() or self._num_dropped:
            _log.warning("W&B did not take every line; metrics.jsonl has them all")

    def _patience_s(self) -> float:
        """Return how long the end may wait: offline for this machine's disk, online for a server that may be slow or gone."""
        if self._mode != "online":
            return _FINISH_TIMEOUT_S
        share = _FINISH_SHARE * (time.monotonic() - self._started)
        return min(_FINISH_TIMEOUT_S, max(share, _FINISH_LEAST_S if self._opened else 0.0))

    def _send(self, training: Training, identity: str, earlier: list[dict[str, Any]]) -> None:
        try:
            kept = _kept_steps(training) if earlier else set()
            run = _open_run(training, identity, self._mode)
            self._opened = True
            if self._mode == "online" and earlier:
                kept = range(run.step)
            for line in earlier:
                if line["step"] not in kept:
                    run.log(line, step=line["step"])
            while (lines := self._lines.get()) is not None:
                for line in lines:
                    run.log(_media(line), step=int(line["step"]))
            run.finish()
        except Exception as error:  # whatever a tracker does, the training goes on
            _log.warning("W&B is off for %s: %s; metrics.jsonl goes on", training.name, _without_key(error))


def _media(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with pictures, histograms and tables as W&B's own kinds."""
    import wandb

    kinds: dict[type, Callable[[Any], Any]] = {
        _Picture: lambda kept: wandb.Image(kept.pixels),
        _Histogram: lambda kept: wandb.Histogram(kept.values.tolist()),
        _Table: lambda kept: wandb.Table(list(kept.rows[0]), [list(row.values()) for row in kept.rows]),
    }
    return {name: kinds.get(type(value), lambda kept: kept)(value) for name, value in line.items()}


def _lines_until(training: Training, step: int) -> list[dict[str, Any]]:
    """Return the lines up to a step as they were to be sent."""
    timings = training.path / "timings.jsonl"
    lines: dict[int, dict[str, Any]] = {}
    for path, prefix in ((training.metrics_file, ""), (timings, "time/")) if step else ():
        for text in path.read_text().splitlines() if path.exists() else []:
            line = json.loads(text)
            if (at := line.pop("step")) <= step:
                lines.setdefault(at, {"step": at}).update({f"{prefix}{k}": v for k, v in line.items()})
    return [lines[at] for at in sorted(lines)]


def _kept_steps(training: Training) -> set[int]:
    """Return the steps in the offline folders of earlier attempts: one killed before W&B opened its file left none."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    found = set()
    for path in training.path.glob("wandb/[0-9]*/wandb/offline-run-*/run-*.wandb"):
        for data in _log_records(path.read_bytes()):
            for item in messages.Record.FromString(data).history.item:
                if (item.key or "/".join(item.nested_key)) == "step":
                    found.add(int(json.loads(item.value_json)))
    return found


def _log_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of an offline file, a LevelDB log: blocks of chunks (checksum, length, kind); a torn last one is not there."""
    place, held = _LOG_HEADER, b""
    while place + _LOG_HEADER <= len(data):
        left = _LOG_BLOCK - place % _LOG_BLOCK
        if left < _LOG_HEADER:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + _LOG_HEADER + length > len(data):
            return
        held += data[place + _LOG_HEADER : place + _LOG_HEADER + length]
        place += _LOG_HEADER + length
        if kind in (_LOG_WHOLE, _LOG_LAST):
            yield held
            held = b""


def sync_offline(folder: Path) -> int:
    """Send every offline folder below `folder` to W&B, each training's in the order of its attempts; return how many.

    Raises:
        ClusterError: W&B refused one; those before it are sent, and sending again changes nothing.

    """
    found = sorted(folder.glob("**/wandb/[0-9]*/wandb/offline-run-*"), key=lambda path: path.parts)
    for path in found:
        identity = json.loads((path.parents[2].parent / "wandb.json").read_text())["id"]
        command = [sys.executable, "-m", "wandb", "sync", "--id", identity, "--append", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            told = _masked(" ".join((done.stderr or done.stdout).split())[-300:])
            raise ClusterError(
                f"{path} was not taken by W&B: {told}; nothing is lost; log in and run the same command again"
            )
        print(f"{path.parents[2].parent.name}: {path.name} sent as run {identity}", flush=True)
    return len(found)


def run_id(training: Training) -> str:
    """Return the training's one W&B run id, kept in its folder."""
    path = training.path / "wandb.json"
    if not path.exists():
        write_file(path, json.dumps({"id": uuid.uuid4().hex[:16], "group": training.group}).encode())
    return json.loads(path.read_text())["id"]


def _attempt_folder(training: Training) -> Path:
    """Return a new numbered folder: the order of attempts is in their names, not in a clock's."""
    root = training.path / "wandb"
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in root.iterdir() if path.name.isdigit()), default=-1) + 1
    folder = root / f"{number:04d}"
    folder.mkdir()
    return folder


def _open_run(training: Training, identity: str, mode: str) -> Any:
    import wandb

    quiet = wandb.Settings(
        console="off", silent=True, disable_git=True, x_disable_stats=True, init_timeout=60, login_timeout=10
    )
    run = wandb.init(
        project=training.tracking.project,
        id=identity,
        name=training.name,
        group=training.group,
        dir=str(_attempt_folder(training)),
        mode="online" if mode == "online" else "offline",
        resume="allow",
        config={
            "settings": training.settings.model_dump(mode="json"),
            "seed": training.seed,
            "key": digest(training.arguments),
        },
        settings=quiet,
    )
    run.define_metric("*", step_metric="step")
    return run


def is_online(wanted: str) -> bool:
    """Say whether metrics of this mode go to W&B's server as they come."""
    return _mode(wanted) == "online"


def _mode(wanted: str) -> str:
    """Return online, offline or disabled; without a key there is nobody to prompt, so auto is offline."""
    if wanted != "auto":
        return wanted
    return "online" if os.environ.get("WANDB_API_KEY") or _has_netrc() else "offline"


def _has_netrc() -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _without_key(error: Exception) -> str:
    return _masked(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _masked(text: str) -> str:
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "(key)") if key else text


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _append(path: Path, line: dict[str, Any]) -> None:
    try:
        with path.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
    except OSError as error:
        storage_full(error, path)


def _cut(path: Path, step: int) -> None:
    """Keep the whole lines up to a step; what a killed attempt wrote after its last checkpoint goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:  # the last line of an attempt killed while it wrote
            continue
    write_file(path, "".join(kept).encode())


def _sync(path: Path) -> None:
    """Make a metric file durable, before the checkpoint that counts on its lines."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
