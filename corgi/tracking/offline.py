"""W&B's offline folders: which steps they contain, and how they are sent later."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

from corgi.settings.errors import ClusterError

_BLOCK, _HEADER = 32 * 1024, 7
_WHOLE, _LAST = 1, 4
_POLL_S = 0.1
QUIET_S = 10.0
"""A file that has not grown for this time is considered complete: its writer is dead."""


def settled_steps(folder: Path, wanted: set[int]) -> set[int]:
    """Return the steps in the offline folders of a run's earlier attempts, once nothing more can be written there.

    W&B's service is a separate process that continues to write after `finish`, and after the death of the attempt it serves.
    It has ended once all `wanted` steps or the newest attempt's exit message are stored, or the files stop growing.
    """
    size, quiet_s = -1, 0.0
    while True:
        files = sorted(
            folder.glob("wandb/[0-9]*/wandb/offline-run-*/run-*.wandb"), key=lambda path: path.parts
        )
        found = {step for path in files for step in steps(messages(path))}
        if wanted <= found or quiet_s >= QUIET_S or (files and _has_exit(files[-1])):
            return found
        before, size = size, sum(path.stat().st_size for path in files)
        quiet_s = quiet_s + _POLL_S if size == before else 0.0
        sleep(_POLL_S)


def await_exit(folder: Path, timeout_s: float) -> bool:
    """Wait until a finished run's file is complete, and return whether it is; its last block is written after `finish` returns."""
    for _ in range(max(1, round(timeout_s / _POLL_S))):
        if any(_has_exit(path) for path in folder.glob("wandb/offline-run-*/run-*.wandb")):
            return True
        sleep(_POLL_S)
    return False


def steps(found: list[Any]) -> list[int]:
    """Return the steps of the history lines among messages, in order."""
    lines = [record.history.item for record in found if record.WhichOneof("record_type") == "history"]
    values = [{item.key or "/".join(item.nested_key): item.value_json for item in line} for line in lines]
    return [int(json.loads(line["step"])) for line in values if "step" in line]


def messages(path: Path) -> list[Any]:
    """Return the messages of an offline file, without an incomplete one at the end."""
    from wandb.proto import wandb_internal_pb2

    protocol: Any = wandb_internal_pb2
    return [protocol.Record.FromString(record) for record in records(path.read_bytes())]


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log: blocks of 32 KiB, chunks of (checksum, length, kind), split where they cross.

    An incomplete record is left out.
    """
    offset, held = _HEADER, b""
    while offset + _HEADER <= len(data):
        left = _BLOCK - offset % _BLOCK
        if left < _HEADER:
            offset += left
            continue
        length, kind = int.from_bytes(data[offset + 4 : offset + 6], "little"), data[offset + 6]
        if offset + _HEADER + length > len(data):
            return
        held += data[offset + _HEADER : offset + _HEADER + length]
        offset += _HEADER + length
        if kind in (_WHOLE, _LAST):
            yield held
            held = b""


def sync_offline(folder: Path) -> int:
    """Send every offline folder below `folder` to W&B, each run's in the order of its attempts; return the number of folders.

    Raises:
        ClusterError: W&B rejected a folder; those before it were sent, and sending them again changes nothing.

    """
    found = sorted(folder.glob("**/wandb/[0-9]*/wandb/offline-run-*"), key=lambda path: path.parts)
    for path in found:
        identity = json.loads((path.parents[2].parent / "wandb.json").read_text())["id"]
        command = [sys.executable, "-m", "wandb", "sync", "--id", identity, "--append", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reply = masked(" ".join((done.stderr or done.stdout).split())[-300:])
            raise ClusterError(
                f"W&B did not accept {path}: {reply}; nothing is lost; log in and run the same command again"
            )
        print(f"{path.parents[2].parent.name}: {path.name} sent as run {identity}", flush=True)
    return len(found)


def masked(text: str) -> str:
    """Return a text without this machine's W&B key."""
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "(key)") if key else text


def _has_exit(path: Path) -> bool:
    return any(record.WhichOneof("record_type") == "exit" for record in messages(path))
