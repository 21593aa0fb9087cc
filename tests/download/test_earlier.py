"""A longer list asks the web for its new rows only, and its tables are those of a plan that never knew the shorter one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from corgi.clip import embed
from corgi.download.earlier import EarlierDownloads
from corgi.flow.dag import Dag
from corgi.planning.blocklist import HashBlocklist
from corgi.tables.arrow import pc
from corgi.tables.schema import REQUEST_URL
from tests.support import growing
from tests.support.fault_server import FaultServer

SHORT, LONG = 90, 120
NEW_CAPTION = ("http://Pictures.test:80/ok/0.png?n=2", "said of it later")
"""An old row under another spelling, with a further caption."""


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    rows = [growing.row_of(number) for number in range(LONG)]
    short = growing.write_list(tmp_path / "short.parquet", rows[:SHORT])
    return short, growing.write_list(tmp_path / "long.parquet", [*rows[SHORT:], NEW_CAPTION, *rows[:SHORT]])


@pytest.mark.flow
def test_law_a_grown_list_gives_the_tables_of_one_plan_for_the_requests_of_its_new_rows(
    in_process: None,
    server: FaultServer,
    lists: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    whole = embed.embed_pictures
    monkeypatch.setattr(
        embed,
        "embed_pictures",
        lambda towers, encoded, *rest: (seen.append(len(encoded)), whole(towers, encoded, *rest))[1],
    )
    growing.run(growing.recipe(tmp_path / "grown", lists[0], server))
    server.forget()
    seen.clear()
    grown = growing.run(growing.recipe(tmp_path / "grown", lists[1], server))
    assert sorted(server.requests) == sorted(growing.path_of(number) for number in range(SHORT, LONG))
    is_new = [number for number in range(SHORT, LONG) if number % 10 > 1]
    assert sum(seen) == len(is_new)
    assert growing.carried(grown, "download") == SHORT
    kept = growing.tables(grown)["image_embeddings"].num_rows
    assert growing.carried(grown, "embed") == kept - len(is_new)
    fresh = growing.run(growing.recipe(tmp_path / "fresh", lists[1], server))
    check_equal(grown, fresh)


def check_equal(grown: Dag, fresh: Dag) -> None:
    """Check tables, counts and digests; vectors differ by the rounding of sums in batches of other sizes at most."""
    found, expected = growing.tables(grown), growing.tables(fresh)
    for name, table in expected.items():
        exact = [column for column in table.column_names if not growing.is_of_floats(table[column].type)]
        assert found[name].select(exact).equals(table.select(exact)), name
        for column in set(table.column_names) - set(exact):
            values, others = (growing.padded(one[column]) for one in (found[name], table))
            np.testing.assert_allclose(values, others, atol=2e-3, rtol=2e-3, err_msg=f"{name}/{column}")
    counts = [{name: one.rows for name, one in dag.run.stages().items()} for dag in (grown, fresh)]
    assert counts[0] == counts[1]
    digests = [
        [dag.run.stages()[name].digest for name in ("plan", "download", "features")] for dag in (grown, fresh)
    ]
    assert digests[0] == digests[1]


@pytest.fixture
def short_run(in_process: None, server: FaultServer, lists: tuple[Path, Path], tmp_path: Path) -> Dag:
    return growing.run(growing.recipe(tmp_path / "runs", lists[0], server), "download")


@pytest.mark.flow
def test_what_asks_for_something_else_is_asked_for_again(
    short_run: Dag, server: FaultServer, lists: tuple[Path, Path], tmp_path: Path
) -> None:
    server.forget()
    other = growing.recipe(tmp_path / "runs", lists[0], server, name="smaller", download={"image_size": 16})
    growing.run(other, "download")
    assert len(server.requests) == SHORT
    server.forget()
    same = growing.recipe(tmp_path / "runs", lists[1], server, name="another-run")
    assert growing.carried(growing.run(same, "download"), "download") == SHORT
    assert len(server.requests) == LONG - SHORT
    server.forget()
    assert growing.carried(growing.run(same, "download", force=True), "download") == 0
    assert len(server.requests) == LONG


@pytest.mark.flow
def test_an_outcome_holds_for_the_same_question_only(short_run: Dag) -> None:
    store, path = short_run.store, short_run.run.stages()["download"].path
    plan = growing.tables(short_run, "plan")["plan"]
    images = growing.tables(short_run, "download")["images"]
    earlier = EarlierDownloads(store, [path], HashBlocklist())
    kept, urls = set(images["url"].to_pylist()), plan["url"].to_pylist()

    def known(table: pa.Table, blocked: HashBlocklist | None = None) -> set[str]:
        downloads = earlier if blocked is None else EarlierDownloads(store, [path], blocked)
        outcomes = downloads.outcomes(table)
        return {url for url in urls if url in outcomes}

    def with_column(name: str, value: str) -> pa.Table:
        at, values = plan.column_names.index(name), pa.array([value] * plan.num_rows)
        return plan.set_column(at, name, values)

    assert known(plan) == set(urls)
    assert known(with_column("expected_hash", f"sha256:{'0' * 64}")) == set()
    one = images["sha256"][0].as_py()
    same = set(images.filter(pc.equal(images["sha256"], one))["url"].to_pylist())
    assert known(with_column("expected_hash", f"sha256:{one}")) == same
    assert known(with_column("location", "elsewhere/0:10")) == set()
    assert known(with_column("reason", "bad_hash")) == set()
    asked = plan.append_column(REQUEST_URL, pa.array([f"{url}&signed" for url in urls]))
    assert known(asked) == kept


@pytest.mark.flow
def test_what_is_damaged_is_fetched_again(
    short_run: Dag, server: FaultServer, lists: tuple[Path, Path], tmp_path: Path
) -> None:
    damaged, gone = short_run.run.shards("download")[:2]
    name = short_run.store.file_name(damaged, short_run.store.entry(damaged, "images"))
    (short_run.store.root / name).write_bytes(b"damaged")
    (short_run.store.root / gone.path).unlink()
    server.forget()
    grown = growing.run(growing.recipe(tmp_path / "runs", lists[1], server, name="another-run"), "download")
    lost = damaged.facts["planned"] + gone.facts["planned"]
    assert len(server.requests) == LONG - SHORT + lost
    assert growing.tables(grown, "download")["ledger"].num_rows == LONG + 1
