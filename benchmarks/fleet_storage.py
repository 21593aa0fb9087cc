"""An object store in memory whose time is accounted, not slept; the manifests of shards are made when they are read."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from corgi.storage.many import MOST_AT_ONCE
from corgi.storage.storage import Storage

REQUEST_S, BYTES_PER_S = 0.030, 90e6
NAMES_PER_LIST = 1_000


@dataclass
class Account:
    """What a driver asked of the store."""

    requests: int = 0
    num_bytes: int = 0
    making_s: float = 0.0
    """CPU-seconds of this double itself, which no driver spends."""


class FleetStorage(Storage):
    """Files by name; `make_manifest` gives the bytes of a shard's manifest that is committed and not stored."""

    def __init__(self, make_manifest: Callable[[str], bytes]) -> None:
        """Start empty."""
        self.files: dict[str, bytes] = {}
        self.committed: dict[str, dict[str, None]] = {}
        self._make_manifest = make_manifest
        self._lock = threading.Lock()
        self._waits: dict[int, float] = {}
        self._main = threading.get_ident()
        self.account = Account()

    def begin(self) -> None:
        """Begin a new account."""
        self.account, self._waits = Account(), {}

    @property
    def waited_s(self) -> float:
        """Return the seconds the driver would have waited: its own thread's, and those of its helpers, shared evenly by 64."""
        own = self._waits.get(self._main, 0.0)
        helpers = sum(s for name, s in self._waits.items() if name != self._main)
        return own + max(helpers / MOST_AT_ONCE, REQUEST_S if helpers else 0.0)

    @property
    def one_by_one_s(self) -> float:
        """Return the seconds the driver would have waited for the same requests one after the other."""
        return sum(self._waits.values())

    def commit(self, stage: str, keys: list[str]) -> None:
        """Have the first manifest of each of these shards."""
        self.committed.setdefault(stage, {}).update(
            dict.fromkeys(f"{stage}/{key}/manifest-0.json" for key in keys)
        )

    def _asked(self, num_bytes: int = 0, requests: int = 1) -> None:
        name = threading.get_ident()
        with self._lock:
            self.account.requests += requests
            self.account.num_bytes += num_bytes
            self._waits[name] = self._waits.get(name, 0.0) + requests * REQUEST_S + num_bytes / BYTES_PER_S

    @contextmanager
    def _not_counted(self) -> Iterator[None]:
        started = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.account.making_s += time.thread_time() - started

    def _bytes(self, name: str) -> bytes:
        if name in self.files:
            return self.files[name]
        if name in self.committed.get(name.partition("/")[0], ()):
            with self._not_counted():
                return self._make_manifest(name)
        raise FileNotFoundError(name)

    @override
    def locate(self, name: str) -> str:
        return f"s3://fleet/runs/store/{name}"

    @override
    def check(self) -> None:
        """Do nothing: a dictionary knows what it holds."""

    @override
    def read(self, name: str) -> bytes:
        data = self._bytes(name)
        self._asked(len(data))
        return data

    @override
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._bytes(name)[offset : offset + length]
        self._asked(len(data))
        return data

    @override
    def measure(self, name: str) -> tuple[int, str]:
        raise NotImplementedError

    @override
    def size(self, name: str) -> int:
        self._asked()
        return len(self._bytes(name))

    @override
    def names(self, folder: str) -> list[str]:
        self._asked()
        start = f"{folder}/"
        stage, _, key = folder.partition("/")
        found = [name[len(start) :] for name in self.files if name.startswith(start)]
        if f"{folder}/manifest-0.json" in self.committed.get(stage, ()) and key:
            found.append("manifest-0.json")
        return [name for name in found if "/" not in name]

    @override
    def folders(self, folder: str) -> list[str]:
        self._asked()
        start = f"{folder}/"
        return sorted({name[len(start) :].partition("/")[0] for name in self.files if name.startswith(start)})

    @override
    def walk(self, folder: str, first: str = "", end: str = "") -> Iterator[tuple[str, int]]:
        start = f"{folder}/" if folder else ""
        stages = [folder] if folder else list(self.committed)
        found = [(name, len(data)) for name, data in self.files.items() if name.startswith(start)]
        found += [(name, 2_000) for stage in stages for name in self.committed.get(stage, ())]
        self._asked(200 * len(found), 1 + len(found) // NAMES_PER_LIST)
        return iter(found)

    @override
    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        sink = io.BytesIO()
        yield sink
        self.put_if_absent(name, sink.getvalue())

    @override
    def put_if_absent(self, name: str, data: bytes) -> bool:
        self._asked(len(data))
        return self.files.setdefault(name, data) is data

    @override
    def replace(self, name: str, data: bytes) -> None:
        self._asked(len(data))
        self.files[name] = data

    @override
    def remove(self, name: str) -> None:
        self._asked()
        self.files.pop(name, None)

    @override
    def make(self, folder: str) -> None:
        """Do nothing: an object store has no folders."""

    @override
    def sync(self, folder: str) -> None:
        """Do nothing: an object that was put is durable."""

    @override
    def local(self, name: str, sha256: str) -> Path:
        raise NotImplementedError
