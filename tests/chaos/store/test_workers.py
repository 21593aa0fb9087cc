"""Promises 11 and 33 on a real Ray: workers killed twenty times, one worker against two; every byte is the same."""

import hashlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from corgi.flow.shards import Pool, make_shards
from corgi.settings.errors import ClusterError
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.store import ShardTask, Store

NUM_SHARDS, NUM_KILLS, SECONDS_A_SHARD = 60, 20, 0.4


class SlowShards:
    """Commits a small table a shard and says which process did it."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Take some time between the files of a commit, so that a kill finds it half done."""
        (Path(task.root) / "pids").mkdir(exist_ok=True)
        (Path(task.root) / "pids" / str(os.getpid())).touch()
        rng = random.Random(task.shard)
        table = pa.table(
            {"uid": [f"{task.shard}-{n}" for n in range(50)], "n": [rng.random() for _ in range(50)]}
        )
        with Store(task.root).attempt(task) as attempt:
            attempt.write_table("rows", table)
            time.sleep(SECONDS_A_SHARD)
            attempt.write_bytes("note", ".json", b"{}")
            return attempt.commit(RowCounts(rows_in=50, kept=50))


def tasks(root: Path) -> list[ShardTask]:
    return [ShardTask(str(root), "toy", f"{n:05d}", f"{n:032x}", 1, "code", {}) for n in range(NUM_SHARDS)]


def contents(root: Path) -> dict[str, str]:
    """Return every committed file's sha256; each shard has one generation that counts."""
    store, found = Store(root), {}
    for task in tasks(root):
        manifest = store.shard(task.stage, task.key)
        assert manifest is not None
        assert store.verify(manifest) == []
        for entry in manifest.files:
            data = (store.root / store.file_name(manifest, entry)).read_bytes()
            found[f"{task.shard}/{entry.table}"] = hashlib.sha256(data).hexdigest()
    return found


def make(root: Path, actors: int) -> float:
    root.mkdir(exist_ok=True)
    started = time.monotonic()
    make_shards(SlowShards, {}, tasks(root), Pool(actors), "toy")
    return time.monotonic() - started


@pytest.mark.timeout(600)
def test_workers_killed_and_workers_doubled(ray_local, tmp_path, promise):
    straight = make(tmp_path / "one", 1)
    doubled = make(tmp_path / "two", 2)
    wanted = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == wanted
    promise(33, f"1 worker against 2: {len(wanted)} of {len(wanted)} files byte-equal")
    killed: list[int] = []
    stop, rng = threading.Event(), random.Random(0)
    (tmp_path / "killed").mkdir()

    def kill() -> None:
        while not stop.wait(0.2 + rng.random() * 0.5) and len(killed) < NUM_KILLS:
            folder = tmp_path / "killed" / "pids"
            alive = [
                int(p.name) for p in folder.glob("*") if int(p.name) not in killed and is_worker(int(p.name))
            ]
            if alive:
                victim = rng.choice(alive)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        seconds = make(tmp_path / "killed", 2)
    finally:
        stop.set()
        killer.join()
    assert contents(tmp_path / "killed") == wanted
    assert len(killed) == NUM_KILLS
    promise(
        11,
        f"{len(killed)} workers killed while {NUM_SHARDS} shards were made: bytes equal, {seconds / doubled:.1f} x the time ({straight:.0f} s alone)",
    )


def is_worker(pid: int) -> bool:
    """Return whether a process is still the Ray worker that wrote its pid."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class DeadlyShards(SlowShards):
    """Shard 0 ends its worker each time."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Die in the middle of a shard, when others of the same worker are under way."""
        if task.shard == "00000":
            time.sleep(SECONDS_A_SHARD / 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make(task)


@pytest.mark.timeout(300)
def test_a_shard_that_ends_its_worker_each_time_takes_no_other_with_it(ray_local, tmp_path):
    with pytest.raises(ClusterError, match=r"1 of 6 shards could not be made: 00000 \(a worker was lost"):
        make_shards(DeadlyShards, {}, tasks(tmp_path)[:6], Pool(shards_at_once=2), "toy")
    made = [
        task.shard for task in tasks(tmp_path)[:6] if Store(tmp_path).shard(task.stage, task.key) is not None
    ]
    assert made == [f"{n:05d}" for n in range(1, 6)]
