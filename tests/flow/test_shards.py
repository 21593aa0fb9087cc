"""A task travels to a worker as text and comes back whole; the worker commits and passes only names on."""

import dataclasses
import json

from corgi.flow.shards import ShardMaker, make_shards, read_task
from corgi.settings.errors import InputError
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask, Store
from tests.support.commit_script import commit, task


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
        task(str(tmp_path), 3), inputs={"plan": ("a", "b")}, payload={"n": [1, {"x": None}]}
    )
    assert read_task(json.dumps(dataclasses.asdict(one))) == one


def test_a_worker_commits_and_returns_names(tmp_path):
    maker = ShardMaker("tests.flow.test_shards:Maker", {"refuse": False})
    tasks = [task(str(tmp_path), shard) for shard in (1, 2)]
    made = maker({"task": [json.dumps(dataclasses.asdict(one)) for one in tasks]})
    rejected = [json.dumps({"timeout": number}) for number in (1, 2)]
    assert made == {"shard": ["00001", "00002"], "rows_in": [5, 6], "kept": [4, 4], "rejected": rejected}
    assert all(Store(tmp_path).shard(one.stage, one.key) is not None for one in tasks)


def test_nothing_pending_starts_nothing():
    make_shards("no.such.module:Maker", {}, [], label="nothing", pool=None)  # pyright: ignore[reportArgumentType]
