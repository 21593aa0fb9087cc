"""A cluster's sheet shows the used train images nearest to its mean, nearest first."""

import numpy as np
from safetensors.numpy import save

from corgi.report import cluster_sheets
from corgi.report.committed import Committed
from corgi.tables.manifest import RowCounts
from tests.support import tables


def commit_shift(run, means: np.ndarray, counts: list[int]) -> None:
    data = save({"mean": means.astype(np.float32), "count": np.array(counts)})
    rows = RowCounts(rows_in=sum(counts), kept=sum(counts))
    output = tables.Output(rows, files={"shift": (".safetensors", data)})
    tables.commit_stage(run, "shift", {"all": output}, ["download", "embed", "curate"])


def test_law_the_sheet_holds_the_used_train_images_of_largest_cosine(tmp_path):
    pictures = tables.some_pictures(40, 3)
    run = tables.tiny_run(tmp_path, pictures)
    dropped = pictures[0]
    means = np.stack([tables.vector(f"mean {k}", tables.DIM) for k in range(3)])
    commit_shift(run, 0.5 * means, [5, 20, 10])
    sheets = cluster_sheets.cluster_sheets(Committed(run))
    assert [(sheet.cluster, sheet.count) for sheet in sheets] == [(1, 20), (2, 10), (0, 5)]
    used = [p for p in pictures if p.reason is None and p is not dropped and p.split == "train"]
    for sheet in sheets:
        near = sorted(
            used, key=lambda p: -float(np.dot(tables.vector(p.uid, tables.DIM), means[sheet.cluster]))
        )
        wanted = [p.captions[0][0] for p in near[: cluster_sheets.NUM_PICTURES]]
        assert [thumbnail.caption for thumbnail in sheet.thumbnails] == wanted


def test_a_run_without_shift_has_no_sheets(tmp_path):
    assert cluster_sheets.cluster_sheets(Committed(tables.tiny_run(tmp_path))) == []
