"""The stage itself: every list row ends in the ledger, whatever the site does, and the tables are the same each time."""

import asyncio
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from yarl import URL

from corgi.download import stage as download
from corgi.download.native_engine import NativeEngine
from corgi.download.shard_tables import shard_tables
from corgi.download.stage import DownloadShards
from corgi.download.stages import Download
from corgi.fetching.exchange import Exchange
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.flow.executor import in_process
from corgi.imaging.decode import StoredImage, decode, decode_stored
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.rejection import Rejection
from corgi.tables.schema import CAPTIONS, IMAGES, LEDGER, PLAN, Reason
from corgi.tables.store import ShardTask, Store
from tests.support.fault_server import FaultServer
from tests.support.pictures import encoded, scene
from tests.support.stages import stage
from tests.support.table_digest import table_digest

HOST = "pictures.test"
REASONS: dict[str, Reason | None] = {
    "/ok/1.jpg": None,
    "/ok/2.png": None,
    "/ok/3.webp": None,
    "/ok/4.gif": None,
    "/big/5.jpg": None,
    "/exif/6.jpg": None,
    "/once/503/7.jpg": None,
    "/redirect/2": None,
    "/gzip/8.jpg": None,
    "/status/404": Reason.HTTP_STATUS,
    "/noai": Reason.OPTED_OUT,
    "/wrongtype": Reason.NOT_AN_IMAGE,
    "/empty": Reason.NOT_AN_IMAGE,
    "/truncated": Reason.DECODE_FAILED,
    "/bomb/jpeg": Reason.TOO_MANY_PIXELS,
    "/bomb/png": Reason.TOO_MANY_PIXELS,
    "/bomb/thin": Reason.ASPECT_RATIO,
    "/endless": Reason.TOO_LARGE,
    "/short": Reason.SHORT_BODY,
    "/redirect/9": Reason.TOO_MANY_REDIRECTS,
    "/redirect-to?u=http://127.0.0.2/": Reason.BLOCKED_ADDRESS,
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def recipe_for(server: FaultServer, root: Path, **changes: Any) -> Recipe:
    section = {
        "image_size": 64,
        "timeout_s": 6.0,
        "max_bytes": 2**20,
        "connections": 16,
        "resolve": [f"{HOST}:80={server.address}"],
        "allow_private": [server.address],
        "cpus_per_actor": 1,
        **changes,
    }
    values = {
        "name": "test",
        "root": str(root),
        "download": section,
        "embed": {"towers": [{"name": "b32", "model": "ViT-B-32", "pretrained": "openai"}]},
    }
    return Recipe.model_validate(values)


def plan_row(number: int, path: str, num_rows: int = 1, captions: int = 1) -> dict[str, Any]:
    return {
        "uid": f"{number * 7919 % 10007:032x}",
        "url": f"http://{HOST}{path}",
        "group": path,
        "split": "train",
        "captions": [{"caption": f"{path} {ordinal}", "kind": "full"} for ordinal in range(captions)],
        "sources": ["digest-of-a-list"] * num_rows,
        "rows": [number * 10 + extra for extra in range(num_rows)],
    }


def plan_of(paths: list[str]) -> pa.Table:
    rows = [plan_row(number, path, 1 + number % 3, number % 4) for number, path in enumerate(paths)]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["uid"]), schema=PLAN)


def commit_plan(context: Any) -> list[ShardTask]:
    """Stand in for the plan stage: two shards of the paths above."""
    plan = plan_of(list(REASONS))
    tasks = []
    for shard, part in enumerate((plan.slice(0, 12), plan.slice(12))):
        task = context.task(f"{shard:05d}", {"shard": shard})
        num_rows = sum(len(rows) for rows in part["rows"].to_pylist())
        with context.store.attempt(task) as attempt:
            attempt.write_table("plan", part)
            attempt.commit(RowCounts(rows_in=num_rows, kept=num_rows))
        tasks.append(task)
    return tasks


def dag_of(recipe: Recipe) -> Dag:
    stages = [
        stage("plan", commit_plan),
        Download(),
    ]
    return open_dag(stages, recipe)


def tables_of(dag: Dag, name: str) -> pa.Table:
    shards = dag.run.shards("download")
    return pa.concat_tables([dag.store.read(shard, name) for shard in shards])


def test_the_stage_accounts_for_every_row_and_repeats_itself(
    ray_local: None, server: FaultServer, tmp_path: Path
) -> None:
    """Two fetchers that share one table of leases on Ray, and one alone in this process, make the same tables."""
    digests = []
    for actors, where in ((2, nullcontext()), (1, in_process())):
        server.forget()
        dag = dag_of(recipe_for(server, tmp_path / str(actors), num_actors=actors))
        with where:
            assert dag.execute(Selection(), print) == 2
        check_tables(dag)
        digests.append([table_digest(tables_of(dag, name)) for name in ("images", "captions", "ledger")])
        requests = len(server.requests)
        assert dag.execute(Selection(), print) == 0
        assert len(server.requests) == requests
    assert digests[0] == digests[1]


def check_tables(dag: Dag) -> None:
    plan = {row["url"].removeprefix(f"http://{HOST}"): row for row in plan_of(list(REASONS)).to_pylist()}
    images, captions, ledger = (tables_of(dag, name) for name in ("images", "captions", "ledger"))
    assert (images.schema, captions.schema, ledger.schema) == (IMAGES, CAPTIONS, LEDGER)
    assert {row["uid"] for row in images.to_pylist()} == {
        plan[path]["uid"] for path, reason in REASONS.items() if reason is None
    }
    by_key = {(entry["source"], entry["row"]): entry for entry in ledger.to_pylist()}
    assert len(by_key) == ledger.num_rows == sum(len(row["rows"]) for row in plan.values())
    for path, reason in REASONS.items():
        for key in zip(plan[path]["sources"], plan[path]["rows"], strict=True):
            entry = by_key[key]
            assert (path, entry["reason"], entry["status"]) == (
                path,
                reason,
                "kept" if reason is None else "rejected",
            )
    assert captions.num_rows == sum(
        len(plan[path]["captions"]) for path, reason in REASONS.items() if reason is None
    )
    assert set(captions["weight"].to_pylist()) == {1.0}
    stage = dag.run.stages()["download"]
    assert stage.rows.rejected == Counter(entry["reason"] for entry in by_key.values() if entry["reason"])
    assert stage.rows.rows_in == ledger.num_rows
    for shard in dag.run.shards("download"):
        check_order(dag.store, shard)


def check_order(store: Store, shard: ShardManifest) -> None:
    uids = store.read(shard, "images")["uid"].to_pylist()
    assert uids == sorted(set(uids))
    keys = [(row["uid"], row["ordinal"]) for row in store.read(shard, "captions").to_pylist()]
    assert keys == sorted(set(keys))
    rows = [(row["source"], row["row"]) for row in store.read(shard, "ledger").to_pylist()]
    assert rows == sorted(set(rows))
    assert shard.facts["kept"] + sum(shard.facts["rejected"].values()) == shard.facts["planned"]


def test_pictures_are_those_of_the_site(server: FaultServer, tmp_path: Path) -> None:
    settings = recipe_for(server, tmp_path).download
    engine = NativeEngine(settings)
    try:
        outcomes = engine.outcomes([f"http://{HOST}/ok/{seed}.jpg" for seed in range(30)])
    finally:
        engine.close()
    expected = [decode(encoded(scene(seed)), settings) for seed in range(30)]
    assert [replace(outcome, http_status=None, num_bytes=None) for outcome in outcomes] == expected
    assert all(
        decode_stored(outcome.image).size == (96, 64)
        for outcome in outcomes
        if isinstance(outcome, StoredImage)
    )
    assert {outcome.http_status for outcome in outcomes} == {200}


def test_an_engine_serves_one_shard_after_another_over_the_same_connections(
    server: FaultServer, tmp_path: Path
) -> None:
    server.forget()
    engine = NativeEngine(recipe_for(server, tmp_path, connections=2).download)
    try:
        for _ in range(3):
            assert all(
                isinstance(outcome, StoredImage)
                for outcome in engine.outcomes([f"http://{HOST}/ok/{seed}.jpg" for seed in range(8)])
            )
    finally:
        engine.close()
    assert server.connections <= 2


def test_a_fetcher_goes_on_with_the_next_shard_while_a_host_holds_the_first_one_up(
    server: FaultServer, tmp_path: Path
) -> None:
    """The first shard's host answers only when the second shard is committed; their connections are shared."""
    dag = dag_of(recipe_for(server, tmp_path, connections=4, timeout_s=60.0))
    dag.execute(Selection(last="plan"), print)
    context = dag.context(Download(), {"plan": dag.run.stages()["plan"]})
    first, second = context.partitioned()
    settled, asked, maker = threading.Event(), threading.Event(), DownloadShards()
    get = Exchange.get

    async def held_up(self: Exchange, url: URL, *rest: Any, **named: Any) -> Any:
        if url.path == "/ok/1.jpg" and not settled.is_set():
            asked.set()
            await asyncio.to_thread(settled.wait, 60)
        return await get(self, url, *rest, **named)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(Exchange, "get", held_up)
        paths = dag.store.read(dag.store.read_shard(first.inputs["plan"][0]), "plan", ["url"])["url"]
        if not any(path.endswith("/ok/1.jpg") for path in paths.to_pylist()):
            first, second = second, first
        try:
            slow = threads.submit(maker.make, first)
            assert asked.wait(60)
            threads.submit(maker.make, second).result(60)
            assert not slow.done()
        finally:
            settled.set()
        slow.result(60)
    maker.close()
    assert dag.execute(Selection(), print) == 1  # both shards are there: the stage is only closed
    check_tables(dag)


def test_an_engine_that_is_closed_leaves_nothing_in_flight(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ended = threading.Event(), list[str]()

    async def never(self: Exchange, url: URL, *rest: Any) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(url.path)

    monkeypatch.setattr(Exchange, "get", never)
    before = {*threading.enumerate()}
    engine = NativeEngine(recipe_for(server, tmp_path, obey_robots_txt=False).download)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(engine.outcomes, [f"http://{HOST}/ok/1.jpg"])
        assert asked.wait(60)
        engine.close()
        with pytest.raises(CancelledError):
            waiting.result(60)
    assert ended == ["/ok/1.jpg"]
    assert {*threading.enumerate()} <= before


def test_the_tables_do_not_depend_on_who_answers_first(server: FaultServer, tmp_path: Path) -> None:
    plan, found = plan_of(list(REASONS)), []
    for connections, retries in ((1, 2), (16, 3)):
        server.forget()
        engine = NativeEngine(recipe_for(server, tmp_path, connections=connections, retries=retries).download)
        try:
            tables = shard_tables(plan, engine.outcomes(plan["url"].to_pylist()))
        finally:
            engine.close()
        found.append((tables.images, tables.captions, tables.ledger, tables.facts))
    assert found[0] == found[1]


def test_a_bug_of_ours_stops_the_shard_instead_of_losing_a_row(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: object, data: bytes, header: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("bug")

    monkeypatch.setattr("corgi.imaging.pool.DecoderPool.decode", broken)
    engine = NativeEngine(recipe_for(server, tmp_path).download)
    try:
        with pytest.raises(ExceptionGroup):
            engine.outcomes([f"http://{HOST}/ok/{seed}.jpg" for seed in range(30)])
    finally:
        engine.close()


def test_an_outcome_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        shard_tables(plan_of(["/a", "/b"]), [Rejection(Reason.DNS)])


def test_memory_does_not_grow_with_the_number_of_refused_bodies(server: FaultServer, tmp_path: Path) -> None:
    engine = NativeEngine(recipe_for(server, tmp_path, connections=4).download)
    try:
        engine.outcomes([f"http://{HOST}/endless"] * 8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        engine.outcomes([f"http://{HOST}/endless"] * 80)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    finally:
        engine.close()
    assert grown < 32 * 2**20


def test_a_wrong_setting_stops_before_ray_starts(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "connect", lambda recipe: pytest.fail("Ray was started"))
    dag = dag_of(recipe_for(server, tmp_path, resolve=["pictures.test:80=localhost:80"]))
    with pytest.raises(SettingsError, match=r"download\.resolve"):
        dag.execute(Selection(), print)


def test_the_stage_body_and_the_maker_are_where_the_pipeline_names_them() -> None:
    assert callable(download.run)
    assert callable(DownloadShards().make)
