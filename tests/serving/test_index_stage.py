"""The committed index is the one that a server makes by itself, and one of other tables is not taken."""

import numpy as np
import pytest

from corgi.serving import picture_index
from corgi.serving.index_stage import CODEC, ROWS, fitted, rows_of_shard
from corgi.serving.picture_index import PictureIndex, stored_parts
from corgi.serving.stages import Index
from corgi.settings.errors import InputError
from corgi.shift.file import safetensors_bytes
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from tests.support.tables import DIM, Output, commit_curate, commit_stage, some_pictures, tiny_run, vector


def commit_index(run: Run) -> None:
    """Commit what the stage's actors commit, without Ray."""
    shards = run.embedded()
    codec = fitted(run.store, run.listed("embed"))
    arrays = {"ranges": codec.ranges, "centres": codec.centres, "dim": np.array([codec.dim])}
    none = RowCounts(rows_in=0, kept=0)
    outputs = {CODEC: Output(none, files={CODEC: (".safetensors", safetensors_bytes(arrays, {}))})}
    for shard in shards:
        table = rows_of_shard(shard, codec)
        outputs[shard.name] = Output(RowCounts(rows_in=table.num_rows, kept=table.num_rows), {ROWS: table})
    commit_stage(run, "index", outputs, Index.inputs)


def found(index: PictureIndex | None) -> list:
    assert index is not None
    return [index.search(np.array(vector(name, DIM), np.float32), 10) for name in ("a", "b", "c")]


def test_law_the_committed_index_finds_what_one_made_at_start_finds(tmp_path):
    run = tiny_run(tmp_path, some_pictures(30), num_shards=3)
    made = found(PictureIndex.load(run))
    assert stored_parts(run, run.embedded()) is None
    commit_index(run)
    assert stored_parts(run, run.embedded()) is not None
    assert found(PictureIndex.load(run)) == made


def test_an_index_of_other_tables_is_not_taken(tmp_path):
    pictures = some_pictures(30)
    run = tiny_run(tmp_path, pictures)
    commit_index(run)
    commit_curate(run, pictures, {picture.url: Reason.DOMAIN_CAP for picture in pictures[:5]})
    assert stored_parts(run, run.embedded()) is None
    index = PictureIndex.load(run)
    assert index is not None
    assert [index.found(row, 0.0).keep for row in range(len(index.uid))].count(False) == 5


def test_a_large_run_without_an_index_is_one_line(tmp_path, monkeypatch):
    run = tiny_run(tmp_path)
    monkeypatch.setattr(picture_index, "UNSTORED_ROWS", 5)
    with pytest.raises(InputError, match="nothing was changed; build it with: corgi index"):
        PictureIndex.load(run)
    commit_index(run)
    assert PictureIndex.load(run) is not None


def test_a_row_that_is_taken_down_is_found_in_the_table_by_its_uid(tmp_path):
    run = tiny_run(tmp_path)
    commit_index(run)
    for shard in run.shards("index")[1:]:
        assert "uid" in run.store.schema(shard, ROWS).names  # what --take-down looks for in every table
