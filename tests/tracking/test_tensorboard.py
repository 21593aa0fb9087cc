"""TensorBoard's event files hold every figure of the metric files, at its step."""

# pyright: reportAttributeAccessIssue=false
# protobuf makes its classes when it is imported

import json
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from corgi.tracking.tensorboard import write_events


def records(path: Path) -> list[bytes]:
    """Return the records of a file of events: length, its checksum, data, their checksum."""
    data, found = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(data[12 : 12 + size])
        data = data[16 + size :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    (path,) = folder.glob("events.out.tfevents.*")
    events = [Event.FromString(record) for record in records(path)]
    return {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}


def lines(*values: dict) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_every_figure_is_there_at_its_step_however_often_it_is_written(tmp_path):
    work = tmp_path / "runs" / "store" / "prior" / "key" / "work"
    work.mkdir(parents=True)
    (work / "metrics.jsonl").write_text(
        lines({"step": 10, "loss": 0.5, "val/loss": None}, {"step": 20, "loss": 0.25}) + '{"step": 30, "lo'
    )
    (work / "timings.jsonl").write_text(lines({"step": 10, "step_s": 2.0}))
    for _ in range(2):
        assert write_events(tmp_path / "runs", tmp_path / "events") == 1
        found = scalars(tmp_path / "events" / "store" / "prior" / "key" / "work")
        assert found == {("loss", 10): 0.5, ("loss", 20): 0.25, ("time/step_s", 10): 2.0}


def test_a_folder_without_metrics_has_no_events(tmp_path):
    assert write_events(tmp_path, tmp_path / "events") == 0
