"""Reads the steps out of a W&B offline folder, as `wandb sync` would."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _FILE_HEADER, _HEADER = 32 * 1024, 7, 7
_FULL, _LAST = 1, 4
_END_TIMEOUT_S = 30.0


def offline_steps(folder: Path) -> list[int]:
    """Return the steps of the history lines of an offline folder, in order, each once."""
    steps: list[int] = []
    for record in _messages(folder):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            steps.append(int(json.loads(items["step"])))
    return list(dict.fromkeys(steps))


def await_exit(folder: Path) -> None:
    """Wait for a finished run's last message: W&B's service writes its last block after `finish` returns."""
    end = time.monotonic() + _END_TIMEOUT_S
    while time.monotonic() < end:
        if any(record.WhichOneof("record_type") == "exit" for record in _messages(folder)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{folder} has no exit message after {_END_TIMEOUT_S:.0f} s")


def _messages(folder: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    found = next(
        folder.glob("run-*.wandb"), None
    )  # a process killed in its first second leaves an empty folder
    data = found.read_bytes() if found else b""
    return [messages.Record.FromString(record) for record in _records(data)]


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log: blocks of 32 KiB, chunks of (checksum, length, kind), split where they cross; a torn last one is not there."""
    place, held = _FILE_HEADER, b""
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if place + _HEADER + length > len(data):
            return
        held += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (_FULL, _LAST):
            yield held
            held = b""
