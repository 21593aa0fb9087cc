"""Tables of many pictures: each caption once, whatever was killed, and the same for any division into shards or workers."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import corgi
from corgi.flow.shards import Pool
from corgi.inference import bulk as module
from corgi.inference.bulk import INDEX, PAINTED, Bulk, paint_tables
from corgi.inference.painter import Painter
from corgi.settings.errors import InputError
from corgi.settings.painting import FinishSettings, PaintSettings
from corgi.tables.manifest import ShardManifest
from corgi.tables.run import Run
from corgi.tables.store import ShardTask, Store
from tests.support.painting_run import painting_run
from tests.support.table_digest import table_digest

ROWS, BAD = 40, 17
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_process")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return painting_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def bulk(run: Run, tmp_path: Path) -> Bulk:
    captions: list[str | None] = [f"picture number {row}" for row in range(ROWS)]
    captions[BAD] = None
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": captions}), path)
    return Bulk(str(run.folder), str(path), "caption", 2, 5, PaintSettings(), FinishSettings(), 8, Pool())


def result(root: Path) -> Run:
    return Run(root / "result", Store(root))


def tables(out: Run, table: str = PAINTED) -> pa.Table:
    return pa.concat_tables([out.store.read(shard, table) for shard in out.shards(PAINTED)])


def test_every_caption_is_painted_once_and_a_bad_row_has_a_reason(
    run: Run, bulk: Bulk, tmp_path: Path
) -> None:
    out = result(tmp_path / "out")
    made = paint_tables(bulk, out)
    assert (made.rows.rows_in, made.rows.kept, made.rows.rejected) == (ROWS, ROWS - 1, {"no_caption": 1})
    pictures, ledger = tables(out).to_pylist(), tables(out, "ledger").to_pylist()
    expected = [(row, number) for row in range(ROWS) if row != BAD for number in range(2)]
    assert [(row["row"], row["number"]) for row in pictures] == expected
    assert [row["row"] for row in ledger] == list(range(ROWS))
    assert [row for row in ledger if row["status"] == "rejected"] == [
        {"row": BAD, "status": "rejected", "reason": "no_caption", "detail": "has no words"}
    ]
    generator = corgi.load(run.folder)
    for row in (pictures[0], pictures[-1]):
        assert row["seed"] == 5 + 2 * row["row"] + row["number"]
        with Image.open(io.BytesIO(row["image"])) as stored:
            [alone] = generator.generate(row["caption"], seed=row["seed"])
            assert np.abs(np.asarray(stored).astype(int) - np.asarray(alone)).max() <= 1
            assert stored.info["prompt"] == row["caption"]
            assert stored.info["seed"] == str(row["seed"])


def test_the_index_lists_tables_that_parquet_readers_read(bulk: Bulk, tmp_path: Path) -> None:
    out = result(tmp_path / "out")
    paint_tables(bulk, out)
    index = json.loads((tmp_path / "out" / "result" / INDEX).read_text())
    read = pa.concat_tables([pq.read_table(path) for path in index[PAINTED]])
    assert read.equals(tables(out))


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of the program catches it."""


def dying(after: int) -> Callable[[Painter, ShardTask], ShardManifest]:
    """Return `Painter.make` of a process that dies while it paints its shard number `after`, files already written."""
    whole, count = Painter.make, 0

    def make(self: Painter, task: ShardTask) -> ShardManifest:
        nonlocal count
        count += 1
        if count > after:
            store = Store(task.root)
            with store.attempt(task) as attempt:
                attempt.write_bytes("pictures", ".parquet", b"half of a table")
                attempt.discard = lambda: None
                raise Killed
        return whole(self, task)

    return make


def test_law_killed_three_times_the_tables_are_those_of_an_unbroken_run(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, killed = result(tmp_path / "unbroken"), result(tmp_path / "killed")
    paint_tables(bulk, unbroken)
    for after in (1, 0, 2):
        with monkeypatch.context() as patched:
            patched.setattr(Painter, "make", dying(after))
            with pytest.raises(Killed):
                paint_tables(bulk, killed)
    made: list[str] = []
    whole = Painter.make
    monkeypatch.setattr(Painter, "make", lambda self, task: made.append(task.shard) or whole(self, task))
    paint_tables(bulk, killed)
    assert len(made) == 5 - 3  # what was committed before is not painted again
    for table in (PAINTED, "ledger"):
        assert table_digest(tables(killed, table)) == table_digest(tables(unbroken, table))
    assert [shard.digest for shard in killed.shards(PAINTED)] == [
        shard.digest for shard in unbroken.shards(PAINTED)
    ]
    rows = tables(killed).select(["row", "number"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows) == 2 * (ROWS - 1)


def test_finished_work_is_recognised_without_loading_a_model(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = result(tmp_path / "out")
    first = paint_tables(bulk, out)
    monkeypatch.setattr(module, "make_shards", None)
    monkeypatch.setattr(module, "connect", None)
    assert paint_tables(bulk, out) == first


def test_a_changed_caption_redoes_its_shard_alone_and_other_settings_redo_all(
    bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = result(tmp_path / "out"), []
    whole = Painter.make
    monkeypatch.setattr(Painter, "make", lambda self, task: made.append(task.shard) or whole(self, task))
    paint_tables(bulk, out)
    captions = pq.read_table(bulk.prompts)["caption"].to_pylist()
    captions[9] = "another"
    pq.write_table(pa.table({"caption": captions}), bulk.prompts)
    paint_tables(bulk, out)
    assert made == [f"{shard:05d}" for shard in range(5)] + ["00001"]
    paint_tables(replace(bulk, asked=PaintSettings(steps=2)), out)
    assert len(made) == 6 + 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"column": "text"}, "has no column 'text'"),
        ({"run": "absent"}, "absent holds no run"),
        ({"n": 0}, "n=0"),
        ({"seed": 2**63 - 5}, "needs seeds outside"),
        ({"prompts": "absent.parquet"}, "absent.parquet cannot be read"),
    ],
)
def test_what_cannot_be_painted_is_one_line(bulk: Bulk, tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(InputError) as caught:
        paint_tables(replace(bulk, **changes), result(tmp_path / "out"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_rows_is_one_line(bulk: Bulk, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("caption\n")
    with pytest.raises(InputError, match="has no rows"):
        paint_tables(replace(bulk, prompts=str(tmp_path / "p.csv")), result(tmp_path / "out"))
