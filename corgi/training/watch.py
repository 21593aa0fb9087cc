"""The progress of trainings on the screen of the process that started them, read from the metric lines of their workers."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from corgi.flow import screen
from corgi.training.training import Training

WATCH_EVERY_S = 2.0
"""Interval at which the metric files are read for the line on the screen."""
_TAIL_BYTES = 16 * 1024
"""Bytes read at the end of a metric file: several of its longest lines."""


@contextmanager
def watched(trainings: Sequence[Training]) -> Iterator[None]:
    """Show one bar over the steps of consecutive trainings while the block waits for them."""
    total = sum(training.settings.num_steps for training in trainings)
    more = f" and {len(trainings) - 1} after it" if len(trainings) > 1 else ""
    ended = threading.Event()
    with screen.bar(trainings[0].name + more, total, "step") as bar:
        thread = threading.Thread(target=_follow, args=(trainings, bar, ended), name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _follow(trainings: Sequence[Training], bar: screen.Bar, ended: threading.Event) -> None:
    while not ended.wait(WATCH_EVERY_S):
        bar.reach(*reached(trainings))


def reached(trainings: Sequence[Training]) -> tuple[int, str]:
    """Return the steps of all trainings so far, and the name (if there are several) and the loss of the current one."""
    steps, parts = 0, list[str]()
    for training in trainings:
        line = _last_line(training.metrics_file)
        steps += int(line.get("step", 0))
        if line:
            loss = line.get("loss")
            parts = [training.name] if len(trainings) > 1 else []
            parts += [f"loss {loss:.4f}"] if loss is not None else []
    return steps, ", ".join(parts)


def _last_line(path: Path) -> dict[str, float]:
    """Return the last complete metric line; an empty dict if there is none yet or this process cannot read the file."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = handle.read().decode(errors="replace").split("\n")[:-1]
        return json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
