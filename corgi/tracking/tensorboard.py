"""Metric files as TensorBoard's event files, written afterwards: a training itself only writes metrics.jsonl."""

import json
from pathlib import Path

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


def write_events(folder: Path, out: Path) -> int:
    """Write one folder of events below `out` per metrics.jsonl below `folder`; return how many.

    Seconds and rates of timings.jsonl are written under `time/`. A folder of events that is there is written anew.
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
    """Return the whole lines of a file that may be being written; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last line end is not whole yet
    return [json.loads(line) for line in lines]
