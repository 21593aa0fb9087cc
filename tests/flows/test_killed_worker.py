"""Ray Train for real: one start that is killed, restarts by itself and goes on. `make test-smoke`; ten restarts: `make chaos-training`."""

import dataclasses
import signal
from pathlib import Path

import pytest

from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.settings.training import TrackingSettings
from corgi.tracking.wandb_sender import run_id
from corgi.training.checkpoint import final_facts
from corgi.training.trainer import final_weights, train
from corgi.training.training import Training
from tests.support.tiny_training import tiny_training

pytestmark = pytest.mark.timeout(600)

RECIPE = Recipe(name="tests")


def trainings(root: Path) -> list[Training]:
    """Return three for one worker group: an unbroken one, one whose second worker is killed once, one that diverges."""
    harm = {"kind": "kill", "step": 6, "global_batch": 8, "marker": str(root / "marker")}
    whole = tiny_training(root / "whole", "whole", {"log": str(root / "whole-ids")}, num_workers=2)
    killed = tiny_training(
        root / "killed", "killed", {"fault": harm, "log": str(root / "killed-ids")}, num_workers=2
    )
    bad = {"bad": list(range(96)), "log": str(root / "diverging-ids")}
    diverging = tiny_training(root / "diverging", "diverging", bad, num_workers=2, max_nonfinite_steps=3)
    return [whole, dataclasses.replace(killed, tracking=TrackingSettings(mode="offline")), diverging]


def ids(root: Path, prefix: str) -> set[str]:
    return {line for path in root.glob(f"{prefix}.*") for line in path.read_text().splitlines()}


@pytest.mark.flow
def test_a_killed_worker_changes_nothing_and_a_users_error_comes_out_as_itself(
    ray_local: None, tmp_path: Path
) -> None:
    """One worker group for both: its start and its restart are what this test costs."""
    whole, killed, diverging = trainings(tmp_path)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with pytest.raises(InputError, match="diverging: 3 steps had a non-finite loss") as caught:
        train([whole, killed, diverging], RECIPE)
    assert len(str(caught.value).splitlines()) == 1
    assert signal.getsignal(signal.SIGINT) is on_interrupt, (
        "Ctrl-C in a later stage would end as if all were done"
    )
    assert list(tmp_path.glob("marker.*")), "no worker was killed: the test shows nothing"
    assert final_weights(killed).read_bytes() == final_weights(whole).read_bytes()
    assert killed.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert ids(tmp_path, "killed-ids") == ids(tmp_path, "whole-ids")
    assert len(ids(tmp_path, "whole-ids")) == 96
    assert final_facts(whole)["steps"] == 12
    runs = list((killed.path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
    assert runs
    assert all(run.name.endswith(run_id(killed.tracked)) for run in runs)
    assert len(list(tmp_path.glob("diverging-ids.*"))) == 2, "two workers tried it once"
