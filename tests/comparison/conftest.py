"""Statistics of a small space, and an arm's objective over a tiny run."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_tensors

from corgi.baselines import ARMS, BASELINES
from corgi.comparison.contest import ArmObjective, Contestant, OnePassObjective
from corgi.comparison.spaces import Space, SpaceRows, statistics
from corgi.feeding.rows import PriorRows, listed_shards
from corgi.settings.compare import CompareSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from tests.support.compared import SETTINGS, rows_of
from tests.support.tables import Output, commit_stage, tiny_run


@pytest.fixture(scope="module")
def found() -> dict[str, torch.Tensor]:
    arrays, _ = statistics(rows_of(300, 16, 0), rows_of(30, 16, 1), CompareSettings(rank=4, arms=ARMS))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}


@pytest.fixture
def objective_of(tmp_path):
    run = tiny_run(tmp_path)
    stages = {stage: run.stages()[stage].path for stage in ("embed", "curate")}
    shards = listed_shards(str(run.store.root.parent), stages)
    space = Space("off_centre", SETTINGS.offset)
    rows = SpaceRows(PriorRows(shards, Split.TRAIN), space)
    train = {
        name: np.concatenate([rows.load(n)[name] for n in range(len(rows.counts)) if rows.counts[n]])
        for name in rows.load(0)
    }
    arrays, _ = statistics(train, train, SETTINGS)
    files = {"statistics": (".safetensors", save_tensors(arrays))}
    commit_stage(run, "spaces", {"off_centre": Output(RowCounts(rows_in=1, kept=1), files=files)}, ["embed"])
    [fitted] = run.shards("spaces")

    def make(arm: str) -> ArmObjective:
        kind = OnePassObjective if BASELINES[arm].one_pass else ArmObjective
        contestant: Contestant = {"space": "off_centre", "arm": arm, "seed": 0}
        return kind(
            str(run.store.root.parent), stages, fitted.path, contestant, SETTINGS.model_dump(mode="json")
        )

    return make
