import json
import logging
import math
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from corgi.settings.errors import StorageError
from corgi.training.checkpoint import Checkpoints, final_facts, final_weights, finish, is_finished
from corgi.training.listing import COMMITTED
from tests.support.tiny_training import tiny_training
from tests.support.waiting import PATIENCE_S


def put(folder: Path) -> None:
    (folder / "engine").mkdir(exist_ok=True)
    (folder / "engine" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(os.urandom(300))
    (folder / "ema.safetensors").write_bytes(os.urandom(200))


def committed(tmp_path: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(tiny_training(tmp_path))
    for step in steps:
        checkpoints.save(step, {"skipped_steps": step}, put)
    return checkpoints


def again(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tiny_training(tmp_path))


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name.partition(".")[0] for path in (tmp_path / "checkpoints").iterdir())


def test_the_newest_committed_one_is_chosen_with_its_state(tmp_path: Path) -> None:
    assert again(tmp_path).newest() is None
    committed(tmp_path, 4, 8)
    found = again(tmp_path).newest()
    assert found is not None
    assert (found.step, found.state) == (8, {"skipped_steps": 8})


def test_a_half_written_folder_is_no_checkpoint_and_is_swept_after_the_next_commit(tmp_path: Path) -> None:
    committed(tmp_path, 4)

    def dies(folder: Path) -> None:
        put(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path).save(8, {}, dies)
    checkpoints = again(tmp_path)
    found = checkpoints.newest()
    assert found is not None
    assert found.step == 4
    checkpoints.save(8, {}, put)
    assert names(tmp_path) == ["step-000000004", "step-000000008"]


def test_any_damage_falls_back_with_one_warning_that_names_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    committed(source, 4, 8)
    rng = random.Random(3)
    for _ in range(60):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
        newest = next((work / "checkpoints").glob("step-000000008.*"))
        victim = rng.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
        data = bytearray(victim.read_bytes())
        if rng.random() < 0.5:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        victim.write_bytes(bytes(data))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = again(work).newest()
        assert found is not None
        assert found.step == 4
        assert len(caplog.records) == 1
        assert str(victim) in caplog.text


def test_missing_and_unlisted_files_are_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    committed(tmp_path, 4, 8)
    newest = next((tmp_path / "checkpoints").glob("step-000000008.*"))
    planted = newest / "engine" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    planted.write_bytes(b"whatever torch.load would run")
    found = again(tmp_path).newest()
    assert found is not None
    assert found.step == 4
    assert f"{planted} is not listed" in caplog.text
    planted.unlink()
    (newest / "ema.safetensors").unlink()
    found = again(tmp_path).newest()
    assert found is not None
    assert found.step == 4
    assert "ema.safetensors is missing" in caplog.text


def test_pruning_keeps_two_whole_ones_at_every_instant(tmp_path: Path, promise: Any) -> None:
    checkpoints = committed(tmp_path, 4, 8)
    for step in range(100, 105):
        (tmp_path / "checkpoints" / f"step-{step:09d}.0badbad0").mkdir()
    fewest = 9
    for step in (12, 16, 20):

        def write(folder: Path) -> None:
            nonlocal fewest
            fewest = min(fewest, len(list(tmp_path.glob("checkpoints/*/COMMITTED.json"))))
            put(folder)

        checkpoints.save(step, {}, write)
        fewest = min(fewest, len(list(tmp_path.glob("checkpoints/*/COMMITTED.json"))))
    assert fewest == 2
    kept = [name for name in names(tmp_path) if int(name[5:]) < 100]
    assert kept == ["step-000000016", "step-000000020"]
    found = again(tmp_path).newest()
    assert found is not None
    assert found.step == 20
    promise(
        18,
        f"5 broken folders among them, 3 saves: never fewer than {fewest} whole ones, before, in and after a save",
    )


def test_the_best_are_kept_by_a_figure_measured_at_their_own_step(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, keep_best=2, best_metric="error", eval_every_steps=4)
    checkpoints = Checkpoints(training)
    scores = {4: 0.3, 8: 0.1, 12: float("nan"), 16: 0.9, 20: 0.2, 24: 0.8, 28: 0.7}
    for step, score in scores.items():
        checkpoints.save(step, {}, put)  # measured afterwards
        line = {"step": step, "val/error": None if math.isnan(score) else score}
        with training.metrics_file.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
    checkpoints.save(30, {}, put)
    assert names(tmp_path) == [f"step-{step:09d}" for step in (8, 20, 28, 30)]


def test_a_damaged_one_does_not_count_as_kept_and_goes_when_its_step_is_done_again(tmp_path: Path) -> None:
    committed(tmp_path, 4, 8)
    newest = next((tmp_path / "checkpoints").glob("step-000000008.*"))
    (newest / "ema.safetensors").write_bytes(b"")
    checkpoints = again(tmp_path)
    assert checkpoints.newest() is not None
    checkpoints.save(6, {}, put)
    assert names(tmp_path) == ["step-000000004", "step-000000006", "step-000000008"]
    checkpoints.save(8, {}, put)
    assert names(tmp_path) == ["step-000000006", "step-000000008"]
    assert not newest.exists()


def test_a_commit_is_never_replaced(tmp_path: Path) -> None:
    checkpoints = committed(tmp_path, 4)
    with pytest.raises(StorageError, match="already committed"):
        checkpoints.save(4, {"other": 1}, put)
    found = again(tmp_path).newest()
    assert found is not None
    assert found.state == {"skipped_steps": 4}


def test_other_settings_are_refused(tmp_path: Path) -> None:
    committed(tmp_path, 4)
    with pytest.raises(StorageError, match="other settings"):
        Checkpoints(tiny_training(tmp_path, lr=0.5)).newest()
    found = Checkpoints(tiny_training(tmp_path, num_workers=4, checkpoint_every_steps=7)).newest()
    assert found is not None


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="no space is left"):
        committed(tmp_path).save(4, {}, full)

    def torch_full(folder: Path) -> None:
        raise RuntimeError(
            "[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed\nmore"
        )

    with pytest.raises(StorageError, match="earlier checkpoints are safe"):
        committed(tmp_path).save(4, {}, torch_full)


def test_final_weights_exist_only_when_committed_and_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = tiny_training(tmp_path)
    with pytest.raises(StorageError, match="no complete weights"):
        final_weights(training)
    path = finish(training, {"w": torch.arange(5.0)}, {"steps": 12})
    assert final_weights(training) == path
    assert final_facts(training) == {"steps": 12}
    assert torch.equal(load_file(path)["w"], torch.arange(5.0))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert not is_finished(training)
    assert str(path) in caplog.text
    finish(training, {"w": torch.arange(5.0)}, {"steps": 12})
    assert is_finished(training)
    with pytest.raises(StorageError, match="other settings"):
        is_finished(tiny_training(tmp_path, lr=0.5))


def test_listing_holds_no_secret_and_no_clock(tmp_path: Path) -> None:
    committed(tmp_path, 4)
    listing = json.loads(next((tmp_path / "checkpoints").glob(f"*/{COMMITTED}")).read_text())
    assert sorted(listing) == ["digest", "files", "meaning", "state", "step"]


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tiny_training(tmp_path))
    begun, go = threading.Event(), threading.Event()

    def write(folder: Path) -> None:
        begun.set()
        assert go.wait(PATIENCE_S)
        put(folder)

    state = {"means": {"loss": 4.0}}
    checkpoints.begin(4, state, write)
    state["means"]["loss"] = 5.0
    assert begun.wait(PATIENCE_S)
    assert again(tmp_path).newest() is None
    checkpoints.check()
    go.set()
    checkpoints.wait()
    found = again(tmp_path).newest()
    assert found is not None
    assert found.state == {"means": {"loss": 4.0}}, "the state is that of its step"
    checkpoints.begin(8, {"skipped_steps": 8}, put)
    checkpoints.close()
    assert names(tmp_path) == ["step-000000004", "step-000000008"]
    found = again(tmp_path).newest()
    assert found is not None
    assert found.state == {"skipped_steps": 8}


@pytest.mark.parametrize("asked", ["check", "wait", "begin"])
def test_a_disk_that_fills_up_behind_the_training_stops_it_with_one_line(tmp_path: Path, asked: str) -> None:
    checkpoints = committed(tmp_path, 4)

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    checkpoints.begin(8, {}, full)
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(PATIENCE_S)
    with pytest.raises(StorageError, match="no space is left"):
        checkpoints.begin(12, {}, put) if asked == "begin" else getattr(checkpoints, asked)()
    checkpoints.close()
    found = again(tmp_path).newest()
    assert found is not None
    assert found.step == 4
