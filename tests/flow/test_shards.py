"""A task travels to a worker as text and comes back whole; the worker commits and passes only names on."""

import dataclasses
import json
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corgi.flow import failures, shards
from corgi.flow.arriving import make_arriving
from corgi.flow.executor import in_process
from corgi.flow.node_types import NodeType, NodeTypes
from corgi.flow.shards import LEAST_TO_STOP, Pool, ShardMaker, make_pending, make_shards, read_task
from corgi.settings.errors import ClusterError, InputError, StorageError
from corgi.tables.manifest import ShardManifest
from corgi.tables.store import ShardTask, Store
from tests.support.commit_script import commit, task
from tests.support.waiting import PATIENCE_S, wait_until


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
    assert made == {
        "key": [one.key for one in tasks],
        "shard": ["00001", "00002"],
        "rows_in": [5, 6],
        "kept": [4, 4],
        "carried": [0, 0],
        "rejected": rejected,
        "failure": ["", ""],
        "note": ["", ""],
    }
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


class Talking(Maker):
    """A maker that says after each shard how many it has made."""

    def __init__(self) -> None:
        super().__init__(refuse=False)
        self.made = 0

    def make(self, one: ShardTask) -> ShardManifest:
        self.made += 1
        return super().make(one)

    def told(self) -> str:
        return f"{self.made} made"


def test_what_a_maker_says_last_is_printed(tmp_path, capsys):
    with in_process():
        make_shards(Talking, {}, [task(str(tmp_path), shard) for shard in (1, 2)], Pool(), "talk")
    assert "talk: 2 made\n" in capsys.readouterr().out


class Meeting(Maker):
    """A maker that ends a shard only while it is given another."""

    def __init__(self) -> None:
        super().__init__(refuse=False)
        self.both = threading.Barrier(2, timeout=PATIENCE_S)

    def make(self, one: ShardTask) -> ShardManifest:
        self.both.wait()
        return super().make(one)


@pytest.mark.parametrize("arriving", [False, True])
def test_one_actor_makes_several_shards_at_once(ray_local, tmp_path, arriving):
    tasks, pool = [task(str(tmp_path), shard) for shard in range(4)], Pool(shards_at_once=2)
    if arriving:
        given = iter([(tasks[:2], True), (tasks[2:], False)])
        make_arriving(Meeting, {}, lambda: next(given), pool, "meet")
    else:
        make_shards(Meeting, {}, tasks, pool, "meet")
    assert all(Store(tmp_path).shard(one.stage, one.key) is not None for one in tasks)


@dataclasses.dataclass
class Faulty:
    """Fails as told by shard: a text raises it each time, a number is how many tries fail, "die" ends the worker once."""

    faults: dict[str, Any]
    folder: str

    def make(self, one: ShardTask) -> ShardManifest:
        fault = self.faults.get(one.shard, 0)
        tries = self.tries(self.folder, one.shard)
        with Path(self.folder, one.shard).open("a") as handle:
            handle.write(f"{os.getpid()}\n")
        if fault == "die" and not tries:
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, int) and len(tries) < fault:
            raise StorageError("the disk is away; what is written is safe; wait", may_pass=True)
        return Maker(refuse=False).make(one)

    @staticmethod
    def tries(folder: str | Path, shard: str) -> list[str]:
        """Return the process of each try."""
        path = Path(folder, shard)
        return path.read_text().split() if path.exists() else []


def made_of(tasks: list[ShardTask]) -> list[str]:
    return [one.shard for one in tasks if Store(one.root).shard(one.stage, one.key) is not None]


@pytest.fixture
def tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which every try is noted; tries follow each other at once."""
    monkeypatch.setattr(failures, "WAIT_S", 0.0)
    (tmp_path / "tries").mkdir()
    return tmp_path / "tries"


def test_all_other_shards_are_committed_and_one_line_names_those_that_failed(tmp_path, tries):
    tasks = [task(str(tmp_path), shard) for shard in range(6)]
    away, cut = (
        StorageError("d is away; all is safe; mount it"),
        InputError("x is cut; all is safe; give another x"),
    )
    faults = {"00000": 2, "00001": away, "00002": 1, "00003": cut, "00004": away, "00005": 0}
    with in_process(), pytest.raises(InputError) as found:
        make_shards(Faulty, {"faults": faults, "folder": str(tries)}, tasks, Pool(), "toys")
    assert str(found.value) == (
        "toys: 3 of 6 shards could not be made: 00003 (x is cut), 00001, 00004 (d is away); what was made is committed; give another x"
    )
    assert made_of(tasks) == ["00000", "00002", "00005"]
    assert [len(Faulty.tries(tries, one.shard)) for one in tasks] == [3, 3, 2, 1, 3, 1]


def test_a_fault_of_every_shard_ends_the_stage_early(tmp_path, tries):
    full = StorageError("no space is left; all is safe; make room")
    tasks = [task(str(tmp_path), shard) for shard in range(3 * LEAST_TO_STOP)]
    faults = {one.shard: full for one in tasks[LEAST_TO_STOP:]}
    with (
        in_process(),
        pytest.raises(StorageError, match=f"{LEAST_TO_STOP} of {len(tasks)} shards.*the rest was not tried"),
    ):
        make_shards(Faulty, {"faults": faults, "folder": str(tries)}, tasks, Pool(), "toys")
    assert len(made_of(tasks)) == LEAST_TO_STOP
    assert not Faulty.tries(tries, tasks[-1].shard)


@pytest.mark.flow
def test_the_last_try_is_another_workers_and_a_lost_worker_costs_nothing(ray_local, tmp_path, tries):
    from ray.data import DataContext

    tasks = [task(str(tmp_path), shard) for shard in range(5)]
    wrong = ValueError("nobody thought of this")
    faults = {"00000": 2, "00001": "die", "00002": wrong, "00003": 1}
    with pytest.raises(
        ClusterError, match=r"1 of 5 shards .*00002 \(ValueError: nobody thought of this\); .*traceback"
    ):
        make_shards(Faulty, {"faults": faults, "folder": str(tries)}, tasks, Pool(2), "toys")
    assert made_of(tasks) == ["00000", "00001", "00003", "00004"]
    for shard in ("00000", "00002"):
        first, second, last = Faulty.tries(tries, shard)
        assert first == second != last
    assert len(Faulty.tries(tries, "00001")) == 2
    assert DataContext.get_current().max_errored_blocks == 0, (
        "another pass over shards could lose some unseen"
    )


def test_the_last_try_avoids_the_nodes_of_those_before_if_another_one_has_room(monkeypatch):
    room = {(): 4, ("a",): 4, ("a", "b"): 0}

    def alive(without):
        return NodeTypes("the cluster", [NodeType("n", room[tuple(without)], 0, 1)], 1)

    monkeypatch.setattr(shards, "alive", alive)
    assert shards.elsewhere({"a", ""}, Pool()) == {"ray.io/node-id": "!in(a)"}
    assert shards.elsewhere({"a", "b"}, Pool()) == shards.elsewhere({""}, Pool()) == {}
    with in_process():
        assert shards.elsewhere({"a"}, Pool()) == {}


@pytest.mark.flow
def test_ray_understands_the_selector_that_leaves_a_node_out(ray_local):
    import ray

    node = "0" * 56

    @ray.remote(label_selector={"ray.io/node-id": f"!in({node})", "corgi/work": "!gpu"})
    def here() -> str:
        return ray.get_runtime_context().get_node_id()

    found = ray.get(here.remote(), timeout=PATIENCE_S)
    assert ray.nodes()[0]["Labels"]["ray.io/node-id"] == found


@pytest.mark.flow
def test_a_follower_starts_lost_actors_again_and_leaves_failed_shards_to_the_stage(
    ray_local, tmp_path, tries
):
    tasks = [task(str(tmp_path), shard) for shard in range(4)]
    faults = {"00000": "die", "00001": ValueError("wrong"), "00002": 1}
    given = iter([(tasks[:2], True), ([], True), (tasks[2:], False)])
    make_arriving(Faulty, {"faults": faults, "folder": str(tries)}, lambda: next(given), Pool(), "toys")
    assert made_of(tasks) == ["00000", "00002", "00003"]


@pytest.mark.flow
def test_a_maker_that_cannot_be_built_ends_the_follower_with_its_own_error(ray_local, tmp_path):
    given = iter([([task(str(tmp_path), 1)], False)])
    with pytest.raises(InputError, match="no such tower"):
        make_arriving(Unbuilt, {}, lambda: next(given), Pool(), "toys")


class Unbuilt(Maker):
    """Cannot be built."""

    def __init__(self) -> None:
        raise InputError("no such tower; nothing was started; name another")


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
    make_arriving(Keeper, {"note": str(tmp_path / "arrived")}, lambda: next(tasks), Pool(), "numbers")
    assert await_text(tmp_path / "arrived") == "True True"
