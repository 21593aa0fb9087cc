"""A training with nothing to learn from is one line that says what is missing, before any worker starts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from corgi.feeding.packed_rows import CaptionedRows, LatentRows
from corgi.feeding.packed_set import PackedSet
from corgi.settings.errors import InputError
from corgi.settings.training import TrainingSettings
from corgi.tables import schema
from corgi.tables.manifest import RowCounts, StageManifest
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.training.data_checks import (
    check_captioned_rows,
    check_pictures,
    check_pictures_differ,
    check_spread,
    check_val_rows,
)
from tests.support.objectives import commit_pack
from tests.support.tables import Output, Picture, commit_curate, commit_stage, some_pictures, tiny_run


def _packed(run: Run) -> PackedSet:
    commit_pack(run)
    return PackedSet.open(str(run.store.root.parent), run.stages()["pack"].path)


def _latents(run: Run) -> StageManifest:
    outputs = {}
    for shard in run.shards("download"):
        rows = [
            {**row, "latent": [0.0] * 4}
            for row in run.store.read(shard, "images", ["uid", "split"]).to_pylist()
        ]
        table = pa.Table.from_pylist(rows, schema=schema.latents(4))
        outputs[shard.shard] = Output(RowCounts(rows_in=len(rows), kept=len(rows)), {"latents": table})
    return commit_stage(run, "autoencoder", outputs, ["download"])


@pytest.mark.parametrize(
    ("captions", "split", "told"),
    [
        ((), "train", "none of the 9 train pictures has a full caption"),
        ((("word", "coarse"),), "train", "none of the 9 train pictures has a full caption"),
        ((("a full one", "full"),), "val", "no train picture is selected"),
    ],
)
def test_nothing_to_learn_from_is_one_line_that_says_what_is_missing(tmp_path, captions, split, told):
    run = tiny_run(tmp_path, [Picture(f"http://p.test/{n}", captions, split) for n in range(10)])
    packed = _packed(run)
    with pytest.raises(InputError, match=told) as caught:
        check_captioned_rows(packed, CaptionedRows(packed, Split.TRAIN))
    assert "\n" not in str(caught.value)
    rows = LatentRows(packed, run.store.listed(_latents(run)), Split.TRAIN)
    if split == "train":
        check_pictures(sum(rows.counts))
    else:
        with pytest.raises(InputError, match=told):
            check_pictures(sum(rows.counts))


def test_captions_that_the_selection_keeps_back_are_named(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    pictures = some_pictures()
    commit_curate(run, pictures, {}, withheld=[picture.url for picture in pictures])
    packed = _packed(run)
    with pytest.raises(InputError, match=r"to be learnt from; .*; raise curate\.caption_share"):
        check_captioned_rows(packed, CaptionedRows(packed, Split.TRAIN))


def test_the_best_checkpoints_need_val_rows(tmp_path: Path) -> None:
    captions = (("a full one", "full"),)
    packed = _packed(tiny_run(tmp_path, [Picture(f"http://p.test/{n}", captions) for n in range(5)]))
    rows = CaptionedRows(packed, Split.VAL)
    check_val_rows(rows, TrainingSettings())
    with pytest.raises(InputError, match=r"training\.keep_best=2 ranks checkpoints by val"):
        check_val_rows(rows, TrainingSettings(keep_best=2, eval_every_steps=1))


@pytest.mark.parametrize("num_rows", [1, 20])
def test_one_embedding_has_no_spread(num_rows: int) -> None:
    rows = np.full((num_rows, 4), 0.5, np.float32)
    with pytest.raises(InputError, match=f"the {num_rows} train pictures have one and the same embedding"):
        check_spread(rows)
    check_spread(np.eye(4, dtype=np.float32)[:2])


@pytest.mark.parametrize("sizes", [(), (1,), (3, 2)])
def test_an_autoencoder_needs_two_different_pictures(sizes: tuple[int, ...]) -> None:
    parts = [torch.full((size, 3, 4, 4), 0.5) for size in sizes]
    with pytest.raises(InputError, match=f"{sum(sizes)} that are left are all equal"):
        check_pictures_differ(parts)
    check_pictures_differ([torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.25)])
