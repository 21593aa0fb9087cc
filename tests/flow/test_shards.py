"""A task travels to a worker as text and comes back whole; the worker commits and passes only names on."""

import dataclasses
import json
import multiprocessing
import time
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corgi.flow import shards
from corgi.flow.executor import in_process
from corgi.flow.shards import Pool, ShardMaker, make_arriving, make_pending, make_shards, read_task
from corgi.settings.errors import InputError
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask, Store
from tests.support.commit_script import commit, task
from tests.support.waiting import wait_until


class Maker:
    """Commit a shard, or refuse."""

    def __init__(self, refuse: bool) -> None:
        self.refuse = refuse

    def make(self, one: ShardTask) -> ShardManifest:
        if self.refuse:
            raise InputError("refused")
        commit(Store(one.root), one)
        manifest = Store(one.root).shard(one.stage, one.key)
        assert manifest is not None
        return manifest


def test_a_task_survives_the_way_to_a_worker(tmp_path):
    one = dataclasses.replace(
        task(str(tmp_path), 3),
        inputs={"plan": ("a", "b")},
        payload={"n": [1, {"x": None}]},
        earlier=(("key", "digest"),),
    )
    assert read_task(json.dumps(dataclasses.asdict(one))) == one


def test_a_worker_commits_and_returns_names(tmp_path):
    maker = ShardMaker(Maker, {"refuse": False})
    tasks = [task(str(tmp_path), shard) for shard in (1, 2)]
    made = maker({"task": [json.dumps(dataclasses.asdict(one)) for one in tasks]})
    rejected = [json.dumps({"timeout": number}) for number in (1, 2)]
    assert made == {"shard": ["00001", "00002"], "rows_in": [5, 6], "kept": [4, 4], "rejected": rejected}
    assert all(Store(tmp_path).shard(one.stage, one.key) is not None for one in tasks)


def test_nothing_pending_starts_nothing():
    make_shards(Maker, {}, [], Pool(), "nothing")


def test_only_what_is_missing_is_made_and_a_finished_stage_joins_no_cluster(tmp_path, monkeypatch):
    tasks, store, joined = [task(str(tmp_path), shard) for shard in (1, 2)], Store(tmp_path), []
    commit(store, tasks[0])
    monkeypatch.setattr(shards, "connect", joined.append)

    def pending(asked: list[ShardTask]) -> list[ShardTask]:
        return [one for one in asked if store.shard(one.stage, one.key) is None]

    context: Any = SimpleNamespace(pending=pending, recipe="recipe")
    with in_process():
        assert make_pending(context, Maker, tasks, Pool(), "rows", {"refuse": False})
        assert joined == ["recipe"]
        assert pending(tasks) == []
        assert not make_pending(context, Maker, tasks, Pool(), "rows", {"refuse": True})
    assert joined == ["recipe"]


class Keeper(Maker):
    """Commit a shard while a child and a named semaphore are held, as decoders hold them; note at the end whether both are whole."""

    def __init__(self, note: str) -> None:
        super().__init__(refuse=False)
        context = multiprocessing.get_context("forkserver")
        self.note, self.lock = Path(note), context.RLock()
        self.child = context.Process(target=time.sleep, args=(60,), daemon=True)
        self.child.start()

    def close(self) -> None:
        tracker = vars(resource_tracker._resource_tracker)["_pid"]
        state = Path(f"/proc/{tracker}/stat").read_text().rpartition(")")[2].split()[0]
        self.note.write_text(f"{self.child.is_alive()} {state != 'Z'}")
        self.child.kill()
        self.child.join()


def await_text(path: Path) -> str:
    wait_until(lambda: path.exists() and path.read_text(), f"{path} is written")
    return path.read_text()


@pytest.mark.flow
def test_a_maker_ends_its_children_before_ray_does(ray_local, tmp_path):
    """Ray kills the children of a worker that ends, and Python's resource tracker with them: its successor complained of each name."""
    one, two = (task(str(tmp_path), shard) for shard in (1, 2))
    make_shards(Keeper, {"note": str(tmp_path / "made")}, [one], Pool(), "numbers")
    assert await_text(tmp_path / "made") == "True True"
    tasks = iter([([two], False)])
    make_arriving(Keeper, {"note": str(tmp_path / "arrived")}, lambda: next(tasks), Pool())
    assert await_text(tmp_path / "arrived") == "True True"
