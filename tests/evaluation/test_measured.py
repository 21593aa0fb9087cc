"""What evaluation reads of a run: kept pictures, and of the train pictures only captions that may be learned from."""

from collections.abc import Collection
from pathlib import Path

import pytest

from corgi.comparison.scores import judge
from corgi.comparison.spaces import Space
from corgi.evaluation import stage
from corgi.settings.compare import ScoreSettings
from corgi.settings.models import EvaluateSettings
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from tests.support.tables import (
    commit_curate,
    commit_download,
    commit_embed,
    commit_plan,
    new_run,
    some_pictures,
)

PICTURES = [p for p in some_pictures(40) if p.reason is None]
WITHHELD = [p.url for p in PICTURES if p.split == "train"][::2]


def run_with(root: Path, dropped: Collection[str] = (), withheld: Collection[str] = ()) -> Run:
    run = new_run(root)
    commit_plan(run, PICTURES)
    commit_download(run, PICTURES)
    commit_embed(run, PICTURES)
    reasons = dict.fromkeys(dropped, Reason.EXACT_DUPLICATE)
    commit_curate(run, PICTURES, reasons, withheld=withheld)
    return run


def references(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    """Return the references that need no training, of the comparison and of the evaluation."""
    names = ("download", "embed", "curate")
    paths = {name: tuple(shard.path for shard in run.shards(name)) for name in names}
    space = Space("own", 0.8)
    compared = judge(run.store, paths, space, ScoreSettings()).references()
    monkeypatch.setattr(stage, "assemble", lambda store, shards: None)  # no model is asked
    shards = {name: list(run.shards(name)) for name in names}
    return compared, stage.Measured(run.store, shards, EvaluateSettings()).references()


def test_references_see_no_caption_that_the_priors_were_denied(tmp_path, monkeypatch) -> None:
    """A picture whose caption is withheld is to them as if it were not there; the prior's rows are the same by test_rows."""
    withheld = references(run_with(tmp_path / "a", withheld=WITHHELD), monkeypatch)
    assert withheld == references(run_with(tmp_path / "b", dropped=WITHHELD), monkeypatch)
    assert withheld != references(run_with(tmp_path / "c"), monkeypatch)
