"""20,000 rows, 15 % of them bad, on four hosts; killed three times and resumed: row by row what an unbroken run gives."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.tables.run import Run
from corgi.tables.schema import Reason
from tests.support.fault_server import FaultServer
from tests.support.hostile import HOSTILE, UNDECODABLE, path_of
from tests.support.process_tree import kill_tree
from tests.support.table_digest import table_digest

HOME = Path(__file__).resolve().parents[3]
NUM_ROWS = 20_000
BAD_EVERY = 20
"""Three rows of every twenty are bad."""
HOSTS = ("127.0.0.1", "127.0.0.3", "127.0.0.4", "127.0.0.5")
NAMES = ("a.test", "b.test", "c.test", "d.test")
TABLES = ("images", "captions", "ledger")
KILLS_AT = (2, 9, 16)
"""Committed shards, of twenty, at which every process of the run is killed."""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[FaultServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FaultServer(host)) for host in HOSTS]


def rows() -> list[tuple[str, Reason | None]]:
    """Return each row's URL and the reason it must be rejected for."""
    faults = list((HOSTILE | UNDECODABLE).items())
    listed: list[tuple[str, Reason | None]] = []
    for number in range(NUM_ROWS):
        host, place = NAMES[number % len(NAMES)], number % BAD_EVERY
        if place < 3:
            fault, reason = faults[(number // BAD_EVERY * 3 + place) % len(faults)]
            path = path_of(fault)
        else:
            path, reason = f"/ok/{number % 300}.jpg", None
        joint = "&" if "?" in path else "?"
        redirected = path.startswith("/redirect-to")
        listed.append(
            (f"http://{host}{path}" + (f"&row={number}" if redirected else f"{joint}row={number}"), reason)
        )
    return listed


def write_recipe(work: Path, servers: list[FaultServer], listed: list[tuple[str, Reason | None]]) -> Path:
    urls = [url for url, _ in listed]
    pq.write_table(
        pa.table({"url": urls, "caption": [f"row {n}" for n in range(len(urls))]}), work / "list.parquet"
    )
    recipe = {
        "name": "hostile",
        "root": str(work / "runs"),
        "plan": {"input": str(work / "list.parquet"), "number_sample_per_shard": 1000},
        "download": {
            "image_size": 64,
            "timeout_s": 8.0,
            "max_bytes": 2**20,
            "connections": 128,
            "host_connections": 64,
            "retries": 1,
            "host_max_faults": 0,
            "num_actors": 2,
            "resolve": [f"{name}:80={server.address}" for name, server in zip(NAMES, servers, strict=True)],
            "allow_private": [server.address for server in servers],
        },
        "embed": {"towers": [{"name": "rn", "model": "RN50", "pretrained": "random"}]},
    }
    path = work / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def command(recipe: Path) -> list[str]:
    return [sys.executable, str(HOME / "pipelines" / "full.py"), str(recipe), "--until", "download"]


def run(recipe: Path) -> str:
    done = subprocess.run(command(recipe), capture_output=True, text=True, timeout=900, cwd=HOME, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def kill_at(recipe: Path, num_shards: int) -> int:
    """Start the run and kill all of its processes once so many shards are committed; return how many were."""
    store = recipe.parent / "runs" / "store" / "download"
    with (recipe.parent / "killed.log").open("w") as log:
        process = subprocess.Popen(command(recipe), stdout=log, stderr=log, cwd=HOME, start_new_session=True)
        deadline = time.monotonic() + 600
        while len(list(store.glob("*/manifest-0.json"))) < num_shards:
            assert process.poll() is None, (recipe.parent / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        kill_tree(process)
    return len(list(store.glob("*/manifest-0.json")))


def tables(work: Path) -> dict[str, pa.Table]:
    opened = Run.open(work / "runs" / "hostile")
    shards = opened.shards("download")
    return {name: pa.concat_tables([opened.store.read(shard, name) for shard in shards]) for name in TABLES}


def by_row(table: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    entries = table.to_pylist()
    keyed = {(entry["source"], entry["row"]): entry for entry in entries}
    assert len(keyed) == len(entries)
    return keyed


@pytest.mark.timeout(1700)
def test_killed_three_times_the_hostile_list_ends_as_in_an_unbroken_run(
    servers: list[FaultServer], tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    listed = rows()
    found: dict[str, dict[str, pa.Table]] = {}
    committed: list[int] = []
    for name in ("unbroken", "killed"):
        work = tmp_path / name
        work.mkdir()
        recipe = write_recipe(work, servers, listed)
        if name == "killed":
            committed = [kill_at(recipe, num_shards) for num_shards in KILLS_AT]
            assert committed[-1] < 20
        said = run(recipe)
        assert f"{NUM_ROWS} in = " in said
        found[name] = tables(work)
    ledger = by_row(found["unbroken"]["ledger"])
    assert [entry["row"] for entry in sorted(ledger.values(), key=lambda e: e["row"])] == list(
        range(NUM_ROWS)
    )
    wrong = Counter(
        (listed[row][0].split("/", 3)[3].partition("row=")[0], entry["reason"])
        for (_, row), entry in ledger.items()
        if entry["reason"] != listed[row][1]
    )
    assert not wrong
    assert found["unbroken"]["images"].num_rows == sum(reason is None for _, reason in listed)
    assert by_row(found["killed"]["ledger"]) == ledger
    assert {name: table_digest(table) for name, table in found["killed"].items()} == {
        name: table_digest(table) for name, table in found["unbroken"].items()
    }
    bad = sum(reason is not None for _, reason in listed)
    promise(1, f"{NUM_ROWS} rows, {bad} bad, killed at {committed} of 20 shards: tables equal, row by row")
    promise(10, f"{NUM_ROWS} in = {NUM_ROWS - bad} kept + {bad} rejected, each for its own reason")
