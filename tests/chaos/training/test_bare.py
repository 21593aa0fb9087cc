"""Resume in bare gloo processes: every stage and type after a SIGKILL, other worker counts, hung workers, averages."""

import json
import logging
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load, load_file
from torch import nn

from corgi.settings.errors import ClusterError
from corgi.training import loop
from corgi.training.checkpoint import Checkpoints
from corgi.training.ema import Ema
from corgi.training.loop import train_loop
from corgi.training.training import Training
from tests.support import checkpoint_sweep
from tests.support.programs import require_program
from tests.support.tiny_training import tiny_training
from tests.support.workers import run_workers

CELLS = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3)]
EPOCH_ROWS = 37 + 20 + 51 + 4
FAILED = (mp.ProcessExitedException, mp.ProcessRaisedException)


def cell(root: Path, kind: str, stage: int, precision: str, fault: Any = None, **changes: Any) -> Training:
    name = f"{kind}-{stage}-{precision}"
    arguments: dict[str, Any] = {"log": str(root / f"ids-{name}"), "dropout": changes.pop("dropout", 0.1)}
    if fault:
        arguments["fault"] = {"global_batch": 8, "marker": str(root / f"marker-{name}"), **fault}
    return tiny_training(root / name, name, arguments, zero_stage=stage, precision=precision, **changes)


def train_each(trainings: list[Training]) -> None:
    for training in trainings:
        train_loop(training)


def metrics(training: Training) -> list[dict[str, Any]]:
    return [json.loads(line) for line in training.metrics_file.read_text().splitlines()]


def final(training: Training) -> bytes:
    return (training.path / "final" / "weights.safetensors").read_bytes()


def ids(root: Path, training: Training) -> set[tuple[int, int]]:
    lines = {line for path in root.glob(f"ids-{training.name}.*") for line in path.read_text().splitlines()}
    return {(int(line.split()[0]), int(line.split()[1])) for line in lines}


@pytest.mark.timeout(900)
def test_sigkill_and_resume_are_bit_equal_at_every_stage_and_type(tmp_path: Path, promise: Any) -> None:
    run_workers(train_each, 2, [cell(tmp_path, "whole", *place) for place in CELLS])
    killed = [cell(tmp_path, "killed", *place, {"kind": "kill", "step": 6}) for place in CELLS]
    for training in killed:
        with pytest.raises(FAILED):
            run_workers(train_each, 2, [training])
        assert [
            p.name[:14] for p in (training.path / "checkpoints").iterdir() if (p / "COMMITTED.json").exists()
        ]
    run_workers(train_each, 2, killed)
    for place, training in zip(CELLS, killed, strict=True):
        whole = cell(tmp_path, "whole", *place)
        assert final(training) == final(whole), place
        assert training.metrics_file.read_bytes() == whole.metrics_file.read_bytes(), place
        assert ids(tmp_path, training) == ids(tmp_path, whole), place
        check_learned(whole, cell(tmp_path, "whole", 0, place[1]), 2e-2 if place[1] == "bf16" else 1e-6)
    promise(
        16, f"{len(CELLS)} of {len(CELLS)} cells bit-equal (stages 0-3, fp32 and bf16, 2 workers, SIGKILL)"
    )


def check_learned(training: Training, at_stage_0: Training, atol: float) -> None:
    """Check that the loss fell, that the table stayed fp32, and that the stages are one training but for rounding."""
    losses = [line["loss"] for line in metrics(training) if "loss" in line]
    assert losses[-1] < losses[0] - 0.05, training.name
    learned, expected = (load(final(one)) for one in (training, at_stage_0))
    assert torch.equal(learned["table"], torch.linspace(0.1, 0.7, 8) / 3), training.name
    torch.testing.assert_close(learned, expected, rtol=0, atol=atol)


@pytest.mark.timeout(900)
def test_two_one_two_four_workers_and_five_kills_are_one_run(tmp_path: Path, promise: Any) -> None:
    kills = [5, 9, 14, 18, 23]
    options: dict[str, Any] = {"num_steps": 28, "dropout": 0.0, "log_every_steps": 1}
    whole = [cell(tmp_path, "whole", stage, "fp32", **options) for stage in (0, 1, 2, 3)]
    run_workers(train_each, 2, whole)
    harm = {"kind": "raise", "step": kills}
    broken = [cell(tmp_path, "broken", stage, "fp32", harm, **options) for stage in (0, 1, 2, 3)]
    for world in (2, 1, 2, 4, 2):
        run_workers(fail_each, world, broken)
    run_workers(train_each, 2, broken)
    worst = 0.0
    for one, other in zip(whole, broken, strict=True):
        pairs = list(zip(metrics(one), metrics(other), strict=True))
        assert [a["step"] for a, _ in pairs] == [b["step"] for _, b in pairs]
        worst = max([worst, *(abs(a["loss"] - b["loss"]) for a, b in pairs if "loss" in a)])
        assert ids(tmp_path, other) == ids(tmp_path, one)
        for epoch in range(28 * 8 // EPOCH_ROWS):
            seen = Counter(uid for position, uid in ids(tmp_path, other) if position // EPOCH_ROWS == epoch)
            assert seen == Counter(range(EPOCH_ROWS))
    assert worst < 1e-4
    promise(16, f"2, 1, 2, 4, 2, 2 workers at stages 0-3, fp32: loss within {worst:.1e} of the unbroken run")
    promise(17, f"each id exactly once an epoch across {len(kills)} failures, at each of 4 stages")


def fail_each(trainings: list[Training]) -> None:
    for training in trainings:
        with pytest.raises(InterruptedError):
            train_loop(training)


def hangs(training: Training) -> None:
    train_loop(training)


@pytest.mark.timeout(300)
def test_stage_2_goes_on_at_stage_1_and_every_other_change_is_refused(tmp_path: Path) -> None:
    harm = {"kind": "raise", "step": 6}
    for stage in (0, 1, 2, 3):
        run_workers(fail_each, 2, [cell(tmp_path, "s", stage, "fp32", harm, dropout=0.0)])
        for other in (0, 1, 2, 3):
            shutil.copytree(tmp_path / f"s-{stage}-fp32", tmp_path / f"from{stage}-{other}-fp32")
    run_workers(stage_changes, 2, tmp_path)
    assert final(cell(tmp_path, "from2", 1, "fp32"))


def stage_changes(root: Path) -> None:
    for stage in (0, 1, 2, 3):
        for other in (0, 1, 2, 3):
            training = cell(root, f"from{stage}", other, "fp32", dropout=0.0)
            if stage == other or (stage, other) == (2, 1):
                train_loop(training)
                continue
            with pytest.raises(ClusterError, match=f"written at ZeRO stage {stage} .* nothing is lost"):
                train_loop(training)


class Watched(Ema):
    """Keeps beside the divided average one made by a single process from whole masters."""

    model: nn.Module

    def update(self, num_updates: int) -> None:
        if num_updates == 0:
            self.alone = self.whole()
        super().update(num_updates)
        weight = 1 - min(self.decay, (1 + num_updates) / (10 + num_updates))
        masters = {name: whole_master(parameter) for name, parameter in self.model.named_parameters()}
        for name, average in self.whole().items():
            self.alone[name].lerp_(masters[name], weight)
            torch.testing.assert_close(average, self.alone[name], rtol=1e-6, atol=1e-7)


def whole_master(parameter: nn.Parameter) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_fp32_param

    found = safe_get_full_fp32_param(parameter)
    return parameter.detach().float() if found is None else found.detach()


def watched(trainings: list[Training]) -> None:
    held = loop.masters

    def seen(engine: Any) -> Any:
        Watched.model = engine.module
        return held(engine)

    loop.masters = seen  # pyright: ignore[reportPrivateImportUsage]
    loop.Ema = Watched  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
    train_each(trainings)


@pytest.mark.timeout(300)
def test_averages_equal_those_of_one_process_with_whole_weights(tmp_path: Path) -> None:
    run_workers(watched, 2, [cell(tmp_path, "ema", *place) for place in CELLS])


@pytest.mark.timeout(120)
def test_a_hung_worker_ends_the_group_and_the_restart_goes_on(tmp_path: Path, promise: Any) -> None:
    training = cell(tmp_path, "hung", 1, "fp32", {"kind": "hang", "step": 6}, collective_timeout_s=5.0)
    started = time.monotonic()
    with pytest.raises(FAILED):
        run_workers(hangs, 2, training, timeout_s=5.0)
    seconds = time.monotonic() - started
    assert seconds < 60
    run_workers(train_each, 2, [training])
    assert metrics(training)[-1]["step"] == 12
    promise(
        16,
        f"a hung worker was noticed {seconds:.0f} s after the start with a time-out of 5 s, and the run went on",
    )


@pytest.mark.timeout(900)
def test_a_kill_at_every_commit_call_leaves_a_whole_checkpoint(tmp_path: Path, promise: Any) -> None:
    require_program("strace")
    found = checkpoint_sweep.sweep(tmp_path, 300)
    assert found["wrong"] == []
    assert found["most_lost"] == 1
    assert int(str(found["hit"])) >= 0.95 * int(str(found["points"]))
    promise(
        15,
        f"{found['hit']} kills, at every commit call: each left a whole checkpoint to go on from, {found['most_lost']} interval lost at most",
    )


def test_a_hundred_damaged_checkpoints_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, promise: Any
) -> None:
    checkpoints = Checkpoints(tiny_training(tmp_path / "source"))
    for step in (4, 8):
        checkpoints.save(step, {}, lambda folder: checkpoint_sweep.put(folder, torch.arange(50.0)))
    rng, passed = random.Random(11), 0
    for trial in range(100):
        shutil.copytree(tmp_path / "source", tmp_path / "work")
        newest = next((tmp_path / "work" / "checkpoints").glob("step-000000008.*"))
        victim = rng.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
        data = bytearray(victim.read_bytes())
        if trial % 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        victim.write_bytes(bytes(data))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = Checkpoints(tiny_training(tmp_path / "work")).newest()
        passed += (
            found is not None and found.step == 4 and [str(victim) in m for m in caplog.messages] == [True]
        )
        shutil.rmtree(tmp_path / "work")
    assert passed == 100
    promise(
        19, f"{passed} of 100 corrupted or cut checkpoints passed over, with one warning that names the file"
    )


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, fired: Path) -> None:
        self.fired = fired

    def __reduce__(self) -> Any:
        return Path.touch, (self.fired,)


@pytest.mark.timeout(120)
def test_a_checkpoint_that_was_replaced_runs_no_code(tmp_path: Path, promise: Any) -> None:
    """Every rank's shard of the newest checkpoint becomes a pickle that acts, and strangers are stored beside it."""
    whole = cell(tmp_path, "whole", 1, "fp32")
    harmed = cell(tmp_path, "harmed", 1, "fp32", {"kind": "kill", "step": 10})
    run_workers(train_each, 2, [whole])
    with pytest.raises(FAILED):
        run_workers(train_each, 2, [harmed])
    newest = max((harmed.path / "checkpoints").glob("step-*"))
    shards = sorted(newest.rglob("*.pt"))
    assert len(shards) >= 3
    for path in [*shards, newest / "stray.pkl", harmed.path / "checkpoints" / "latest"]:
        torch.save({"state": Bomb(tmp_path / "fired")}, path)
    torch.load(shards[0], weights_only=False)
    (tmp_path / "fired").unlink()  # it does fire where nobody verifies
    run_workers(train_each, 2, [harmed])
    assert not (tmp_path / "fired").exists()
    assert final(harmed) == final(whole)
    promise(29, f"checkpoints: {len(shards)} shards replaced by acting pickles, and 2 beside them: 0 fired")


def train_each_as_on_a_gpu(trainings: list[Training]) -> None:
    """Train, and note of every tensor that is saved that it was on a GPU, as torch.save does there."""
    torch.serialization.location_tag = lambda storage: "cuda:0"  # pyright: ignore[reportAttributeAccessIssue]
    train_each(trainings)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_workers", [2, 1])
def test_a_checkpoint_of_gpus_goes_on_without_them(tmp_path: Path, num_workers: int) -> None:
    whole = cell(tmp_path, "whole", 1, "fp32", dropout=0.0)
    moved = cell(tmp_path, "moved", 1, "fp32", {"kind": "kill", "step": 10}, dropout=0.0)
    run_workers(train_each, 2, [whole])
    with pytest.raises(FAILED):
        run_workers(train_each_as_on_a_gpu, 2, [moved])
    newest = max((moved.path / "checkpoints").glob("step-*"))
    with pytest.raises(RuntimeError, match="CUDA device"):
        torch.load(next(newest.rglob("*.pt")), weights_only=False)
    run_workers(train_each, num_workers, [moved])
    found, expected = (load_file(t.path / "final" / "weights.safetensors") for t in (moved, whole))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0 if num_workers == 2 else 1e-4)


@pytest.mark.timeout(300)
def test_compiled_training_is_the_same_to_rounding(tmp_path: Path) -> None:
    plain = cell(tmp_path, "plain", 1, "fp32", dropout=0.0)
    fused = cell(tmp_path, "compiled", 1, "fp32", dropout=0.0, compile=True)
    run_workers(train_each, 2, [plain, fused])
    left, right = (load_file(t.path / "final" / "weights.safetensors") for t in (plain, fused))
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=1e-4)
