"""Conversion of metric files to TensorBoard event files, done afterwards: a training itself only writes metrics.jsonl."""

import json
from pathlib import Path

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


def write_events(folder: Path, out: Path) -> int:
    """Write one folder of events below `out` per metrics.jsonl below `folder`; return their number.

    Seconds and rates of timings.jsonl are written under `time/`. An existing folder of events is replaced.
    """
    from tensorboardX import SummaryWriter

    found = sorted(folder.rglob(METRICS))
    for path in found:
        target = out / path.parent.relative_to(folder)
        for earlier in target.glob("events.out.tfevents.*"):
            earlier.unlink()
        with SummaryWriter(str(target), write_to_disk=True) as writer:
            for name, prefix in ((METRICS, ""), (TIMINGS, "time/")):
                for line in _lines(path.parent / name):
                    step = int(line.pop("step") or 0)
                    for key, value in line.items():
                        if value is not None:
                            writer.add_scalar(f"{prefix}{key}", value, step)
    return len(found)


def _lines(path: Path) -> list[dict[str, float | None]]:
    """Return the complete lines of a file that may still be written to; empty if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last line end is not complete yet
    return [json.loads(line) for line in lines]
