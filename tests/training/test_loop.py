"""The loop in bare gloo processes: every ZeRO stage, resumed, cut, harmed; one start of two workers, then one worker, this process.

The same at bf16: tests/chaos/training/test_bare.py.
"""

import gc
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from corgi.feeding.noise import Noise
from corgi.latents.objective import AutoencoderObjective
from corgi.models.adversary import codec_state
from corgi.settings.errors import ClusterError, InputError, StorageError
from corgi.settings.models import AutoencoderSettings
from corgi.settings.training import TrackingSettings
from corgi.tables.run import Run
from corgi.training import loop, universal, versions
from corgi.training.alone import train_alone
from corgi.training.checkpoint import Checkpoints, final_facts
from corgi.training.ema import apart
from corgi.training.loop import train_loop
from corgi.training.ranks import own_rows, rank, world_size
from corgi.training.shared_folder import check_shared
from corgi.training.snapshot import Snapshot
from corgi.training.trainer import Job, train_worker
from corgi.training.training import Training
from corgi.training.versions import check_versions, installed
from tests.support.objectives import decoder_objective, decoder_run, prior_objective, prior_run
from tests.support.tables import tiny_run
from tests.support.tiny_training import TinyObjective, TinyRows, tiny_training
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.workers import run_workers

STAGES = (0, 1, 2, 3)
CODEC_STAGES = (0, 1, 2)
"""Those that an adversarial loss and a learned codebook allow."""
RECOMPUTED_STAGES = (0, 3)
"""Whole weights, and weights that are gathered again to recompute; stages 1 and 2 part what no forward pass reads."""
BAD = (17, 45, 46)  # positions in steps 2 and 5

pytestmark = pytest.mark.slow


def named(root: Path, kind: str, stage: int, **changes: Any) -> Training:
    name = f"{kind}-{stage}"
    arguments: dict[str, Any] = changes.pop("arguments", {})
    return tiny_training(root / name, name, arguments, zero_stage=stage, precision="fp32", **changes)


def fault(root: Path, name: str) -> dict[str, Any]:
    return {"kind": "raise", "step": 6, "global_batch": 8, "marker": str(root / f"marker-{name}")}


def still(root: Path, kind: str, stage: int, **changes: Any) -> Training:
    arguments = {"dropout": 0.0, **changes.pop("arguments", {})}
    return named(root, kind, stage, arguments=arguments, num_steps=8, **changes)


def halted(root: Path, stage: int) -> Training:
    return still(root, "halted", stage, arguments={"fault": fault(root, f"halted-{stage}")})


def partly(root: Path, kind: str, stage: int, **arguments: Any) -> Training:
    """A training whose first layer does not learn."""
    return still(root, f"partly-{kind}", stage, arguments={"frozen": True, **arguments})


def twice(root: Path, kind: str, **arguments: Any) -> Training:
    """A training with a second average, which stands still after five updates."""
    return named(root, kind, 1, arguments={"second": (0.5, 5), **arguments})


def partly_halted(root: Path, stage: int) -> Training:
    return partly(root, "halted", stage, fault=fault(root, f"partly-halted-{stage}"))


class FaultyCodec(AutoencoderObjective):
    """Raises once per worker in the fifth step, where `marker` names a place for what tells it."""

    def __init__(self, marker: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.marker = marker

    def loss(self, model: Any, batch: dict[str, torch.Tensor], noise: Noise) -> Any:
        told = Path(f"{self.marker}.{rank()}")
        if self.marker and noise.first // 4 == 4 and model.training and not told.exists():
            told.touch()
            wait_until(lambda: _is_committed(told.parent), "the checkpoint before the fault is committed")
            raise InterruptedError("a fault the test asked for")
        return super().loss(model, batch, noise)


def _is_committed(folder: Path) -> bool:
    return any(folder.glob("checkpoints/step-*/COMMITTED.json"))


def codec(root: Path, kind: str, stage: int, is_faulty: bool = False) -> Training:
    """An adversarial autoencoder with a learned codebook."""
    run, folder = Run.open(root / "pictures/tiny"), root / f"codec-{kind}-{stage}"
    steps = {"num_steps": 6, "global_batch": 4, "zero_stage": stage, "precision": "fp32", "ema_decay": 0.5}
    settings = AutoencoderSettings.model_validate(
        {
            "kind": "vq",
            "image_size": 16,
            "conv": {"widths": [8, 8], "channels": 2},
            "quantiser": {"codebook": "ema", "num_codes": 12, "decay": 0.5, "revive_below": 0.2},
            "adversarial": {"weight": 0.2, "start": 0.3, "widths": [8, 8]},
            "training": {**steps, "checkpoint_every_steps": 3, "lr": 1e-3},
        }
    )
    stages = {name: run.stages()[name].path for name in ("download", "curate")}
    arguments = {
        "root": str(run.store.root.parent), "stages": stages, "tower": None,
        "settings": settings.model_dump(mode="json"), "marker": str(folder / "fault") if is_faulty else "",
    }  # fmt: skip
    quiet = TrackingSettings(mode="disabled")
    return Training(
        folder.name, str(folder), FaultyCodec, arguments, settings.training, quiet, "tests", seed=3
    )


def codecs(root: Path) -> None:
    """Train at each stage whole and to a fault."""
    for stage in CODEC_STAGES:
        train_loop(codec(root, "two", stage))
        interrupted(codec(root, "halted", stage, is_faulty=True))


def unmeasured(root: Path) -> Training:
    """A training that fails once in its evaluation; the log says which row was trained on where."""
    harm = {**fault(root, "unmeasured"), "kind": "evaluate", "step": 12}
    return named(root, "unmeasured", 1, arguments={"fault": harm, "log": str(root / "rows")})


def measured(root: Path) -> None:
    """Write what the objectives of prior and decoder measure on val."""
    objectives = (
        prior_objective(Run.open(root / "prior/tiny")),
        decoder_objective(Run.open(root / "decoder/tiny")),
    )
    figures: dict[str, float] = {}
    for objective in objectives:
        torch.manual_seed(0)
        model = objective.model()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        figures |= objective.evaluate(model)
    if rank() == 0:
        (root / f"figures-{world_size()}.json").write_text(json.dumps(figures))


KEPT: dict[str, Any] = {"eval_every_steps": 4, "keep_best": 1, "best_metric": "error"}


def behind(training: Training, lost: int | None = None) -> None:
    """Train with every checkpoint written after the evaluation of its step; the checkpoint of step `lost` is lost then."""
    measured, write = TinyObjective.evaluate, Snapshot.write
    evaluated = threading.Event()

    def evaluate(objective: TinyObjective, model: torch.nn.Module) -> dict[str, float]:
        found = measured(objective, model)
        evaluated.set()
        if lost is not None:  # so that every worker learns of it at one step
            wait_until(
                lambda: "checkpoint" not in {thread.name for thread in threading.enumerate()},
                "the end of writing",
            )
        return found

    def held(snapshot: Snapshot) -> None:
        assert evaluated.wait(PATIENCE_S), "the evaluation waits for the checkpoint"
        evaluated.clear()
        if lost is not None and any(f"step-{lost:09d}" in str(path) for path, _ in snapshot.states):
            raise OSError(5, "a checkpoint is lost")
        write(snapshot)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinyObjective, "evaluate", evaluate)
        patch.setattr(Snapshot, "write", held)
        train_loop(training)


def waited_for(training: Training) -> None:
    """Train with every checkpoint committed before its step is evaluated."""
    begin = Checkpoints.begin

    def begun_and_ended(self: Checkpoints, *arguments: Any) -> None:
        begin(self, *arguments)
        self.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "begin", begun_and_ended)
        train_loop(training)


def blocks(root: Path, kind: str, **changes: Any) -> Training:
    stage = changes.pop("zero_stage", 1)
    return named(root, kind, stage, arguments={"depth": 2}, num_steps=6, **changes)


def interrupted(training: Training) -> None:
    with pytest.raises(InterruptedError):
        train_loop(training)


def noticed(root: Path) -> int:
    """Train with a notice at the third look, to a fault after it; return the step of the checkpoint that is left."""
    looks = iter((False, False, True))
    training = named(
        root, "noticed", 0, arguments={"fault": fault(root, "noticed")}, num_steps=8,
        checkpoint_every_steps=100, checkpoint_every_minutes=0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("corgi.training.loop.NOTICE_EVERY_S", 0.0)
        with pytest.raises(InterruptedError):
            train_loop(training, notice=lambda: next(looks, True))
    found = Checkpoints(training).newest()
    return 0 if found is None else found.step


def shared_then_not(root: Path) -> None:
    check_shared(root / "shared")
    with pytest.raises(StorageError, match=r"is not shared: workers 1 of 2 do not see.*set scratch"):
        check_shared(root / f"node-{rank()}")


def saved_elsewhere(training: Training) -> None:
    """Train to a fault with checkpoints whose tensors are told to be a GPU's, as those of DeepSpeed on GPUs were; then go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        interrupted(training)
    train_loop(training)


def diverge(root: Path) -> None:
    """Meet a user's error on every worker of Ray Train; each returns once the other has met it too."""
    training = named(root, "met", 0, arguments={"bad": list(range(96))}, num_workers=2, max_nonfinite_steps=3)
    train_worker({"job": Job((training,), str(root / "failure.json"))})


def another_torch(root: Path) -> None:
    """Meet a worker with another torch: every worker is told of both."""
    check_versions()
    mine = installed()
    with pytest.MonkeyPatch.context() as patch:
        if rank() == 1:
            patch.setattr(versions, "installed", lambda: "torch 1.0.0 for CUDA 9.0")
        with pytest.raises(
            ClusterError, match=r"worker 1 on .* has torch 1\.0\.0 for CUDA 9\.0, but worker 0 on .* has"
        ) as found:
            check_versions()
    (root / f"told.{rank()}").write_text(str(mine in str(found.value)))


def two_workers(root: Path) -> None:
    """Train everything the tests below look at."""
    gc.freeze()  # ZeRO 3 collects garbage at each start, 0.6 s among all modules
    shared_then_not(root)
    another_torch(root)
    (root / f"noticed.{rank()}").write_text(str(noticed(root)))
    for stage in STAGES:
        train_loop(named(root, "whole", stage))
        broken = named(root, "broken", stage, arguments={"fault": fault(root, str(stage))})
        interrupted(broken)
        train_loop(broken)
        saved_elsewhere(
            named(root, "elsewhere", stage, arguments={"fault": fault(root, f"elsewhere-{stage}")})
        )
        train_loop(named(root, "bad", stage, arguments={"bad": BAD}, num_steps=8))
        train_loop(still(root, "parts", stage, micro_batch=1))
        train_loop(still(root, "two", stage))
        interrupted(halted(root, stage))
        train_loop(partly(root, "whole", stage))
        interrupted(partly_halted(root, stage))
    waited_for(named(root, "waited", 1, **KEPT))
    behind(named(root, "behind", 1, **KEPT))
    with pytest.raises(StorageError):
        behind(named(root, "lost", 1, **KEPT), lost=8)
    train_loop(named(root, "lost", 1, **KEPT))
    codecs(root)
    train_loop(twice(root, "twice"))
    broken = twice(root, "twice-broken", fault=fault(root, "twice"))
    interrupted(broken)
    train_loop(broken)
    interrupted(unmeasured(root))
    train_loop(unmeasured(root))
    measured(root)
    train_loop(blocks(root, "kept"))
    for stage in RECOMPUTED_STAGES:
        train_loop(blocks(root, "recomputed", zero_stage=stage, activation_checkpointing=True))
    train_loop(blocks(root, "offloaded", offload=True))
    train_loop(still(root, "five", 1, global_batch=10, micro_batch=2))
    with pytest.raises(InputError, match="2 steps had a non-finite loss or gradient, the last at step 6"):
        train_loop(named(root, "diverged", 1, arguments={"bad": BAD}, max_nonfinite_steps=2))
    diverge(root)
    (root / f"compiler.{rank()}").write_text(str("torch._inductor.compile_fx" in sys.modules))


def watched(training: Training, log: Path) -> None:
    """Train, and note the order in which backward passes are made and outcomes of steps are asked for."""
    events: list[str] = []
    made, told = loop.backward, loop.outcome

    def backward(*arguments: Any) -> None:
        events.append("backward")
        made(*arguments)

    def outcome(engine: Any) -> Any:
        ask = told(engine)
        return lambda: (events.append("asked"), ask())[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "backward", backward)
        patch.setattr(loop, "outcome", outcome)
        train_alone([training])
    log.write_text(" ".join(events))


def one_worker(root: Path) -> None:
    measured(root)
    watched(named(root, "asked", 0, log_every_steps=4, num_steps=8), root / "events")
    train_alone([still(root, "one", 1), halted(root, 0)])
    with pytest.MonkeyPatch.context() as patch:  # by processes of their own, as a large one is converted
        patch.setattr(universal, "BYTES_PER_WORKER", 1)
        train_alone([halted(root, 1)])
    train_alone(
        [codec(root, "one", 0), *(codec(root, "halted", stage, is_faulty=True) for stage in CODEC_STAGES)]
    )
    train_alone([halted(root, 2), halted(root, 3), *(partly_halted(root, stage) for stage in STAGES)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    prior_run(folder / "prior")
    decoder_run(folder / "decoder")
    tiny_run(folder / "pictures")
    run_workers(two_workers, 2, folder)
    one_worker(folder)
    return folder


def test_folders_of_each_node_are_refused_on_every_worker_and_nothing_is_left(root: Path) -> None:
    assert list((root / "shared").iterdir()) == list((root / "node-0").iterdir()) == []


def test_two_versions_of_torch_are_both_named_on_every_worker(root: Path) -> None:
    assert [(root / f"told.{number}").read_text() for number in range(2)] == ["True", "True"]


def test_a_training_that_compiles_nothing_loads_no_compiler(root: Path) -> None:
    assert [(root / f"compiler.{number}").read_text() for number in range(2)] == ["False", "False"]


def test_a_notice_leaves_a_checkpoint_on_all_workers_at_one_step(root: Path) -> None:
    """Told one step late: the third look is after step 4."""
    assert [(root / f"noticed.{number}").read_text() for number in range(2)] == ["4", "4"]


def weights(training: Training) -> dict[str, torch.Tensor]:
    return load_file(training.path / "final" / "weights.safetensors")


def steps(training: Training) -> list[dict[str, Any]]:
    return [json.loads(line) for line in training.metrics_file.read_text().splitlines()]


def assert_close(a: Training, b: Training, atol: float) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(
            value, right[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["broken", "elsewhere"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(root: Path, kind: str, stage: int) -> None:
    """Also where the checkpoint was written on another kind of device."""
    whole, broken = named(root, "whole", stage), named(root, kind, stage)
    assert (broken.path / "final/weights.safetensors").read_bytes() == (
        whole.path / "final/weights.safetensors"
    ).read_bytes()
    assert broken.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert [line["step"] for line in steps(whole)] == [3, 6, 9, 12, 12]


def test_a_second_average_changes_nothing_of_the_first_and_is_resumed_bit_for_bit(root: Path) -> None:
    """It is kept where it is asked for alone; the file of the final weights holds both."""
    plain, broken = named(root, "whole", 1), twice(root, "twice-broken")
    first, second = apart(weights(twice(root, "twice")))
    assert (broken.path / "final/weights.safetensors").read_bytes() == (
        twice(root, "twice").path / "final/weights.safetensors"
    ).read_bytes()
    assert first.keys() == second.keys() == weights(plain).keys()
    assert all(torch.equal(value, first[name]) for name, value in weights(plain).items())
    assert torch.equal(first["table"], second["table"])
    assert not torch.equal(first["inner.weight"], second["inner.weight"])
    kept = {
        training.name: {path.name for path in training.path.glob("checkpoints/*/ema*")}
        for training in (plain, broken)
    }
    assert kept == {plain.name: {"ema.safetensors"}, broken.name: {"ema.safetensors", "ema2.safetensors"}}


def test_a_training_that_dies_in_its_evaluation_repeats_no_step(root: Path) -> None:
    whole, mended = named(root, "whole", 1), unmeasured(root)
    trained = [line.split()[0] for path in root.glob("rows.*") for line in path.read_text().splitlines()]
    assert sorted(map(int, trained)) == list(range(12 * 8))
    assert mended.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert final_facts(mended)["val"] == final_facts(whole)["val"]


@pytest.mark.parametrize("kind", ["behind", "lost"])
def test_an_evaluation_does_not_depend_on_whether_its_checkpoint_is_written(root: Path, kind: str) -> None:
    """Also where that checkpoint is never written: the training goes on from the one before and measures again."""
    waited, found = named(root, "waited", 1), named(root, kind, 1)
    assert [line["step"] for line in steps(found) if "val/error" in line] == [4, 8, 12]
    assert found.metrics_file.read_bytes() == waited.metrics_file.read_bytes()
    assert (found.path / "final/weights.safetensors").read_bytes() == (
        waited.path / "final/weights.safetensors"
    ).read_bytes()
    assert final_facts(found) == final_facts(waited)
    assert (
        committed_states(found).items()
        >= {step: held for step, held in committed_states(waited).items() if step > 4}.items()
    )


def committed_states(training: Training) -> dict[int, list[str]]:
    """Return the hashes of each checkpoint's files, by step."""
    listings = [json.loads(path.read_text()) for path in training.path.glob("checkpoints/*/COMMITTED.json")]
    return {found["step"]: [line["sha256"] for line in found["files"]] for found in listings}


@pytest.mark.law
@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_the_shares_of_all_workers_are_all_rows(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr("corgi.training.ranks.world_size", lambda: workers)
    for num_rows in (0, 1, 7, 512):
        shares: list[range] = []
        for number in range(workers):
            monkeypatch.setattr("corgi.training.ranks.rank", lambda number=number: number)
            shares.append(own_rows(num_rows))
        assert [row for share in shares for row in share] == list(range(num_rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_is_measured_on_val_does_not_depend_on_the_number_of_workers(root: Path) -> None:
    one, two = (json.loads((root / f"figures-{workers}.json").read_text()) for workers in (1, 2))
    assert one == pytest.approx(two, rel=1e-5)
    assert len(one) == 7
    alone, together = (final_facts(still(root, kind, 1))["val"] for kind in ("one", "two"))
    assert alone == pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_stages_are_one_training(root: Path, stage: int) -> None:
    assert_close(named(root, "whole", stage), named(root, "whole", 0), 1e-6)


def test_training_learns_and_tables_stay_fp32(root: Path) -> None:
    for stage in STAGES:
        training = named(root, "whole", stage)
        losses = [line["loss"] for line in steps(training) if "loss" in line]
        assert losses[-1] < losses[0] - 0.05
        assert torch.equal(weights(training)["table"], torch.linspace(0.1, 0.7, 8) / 3)


def test_the_outcome_of_a_step_is_asked_once_the_next_is_queued(root: Path) -> None:
    """Before a line of metrics or a checkpoint it is asked at once; both come after steps 4 and 8."""
    four = ["backward", "backward", "asked", "backward", "asked", "backward", "asked", "asked"]
    assert (root / "events").read_text().split() == four * 2


@pytest.mark.parametrize("stage", STAGES)
def test_steps_that_are_not_finite_are_skipped_alike_and_counted(root: Path, stage: int) -> None:
    training = named(root, "bad", stage, num_steps=8)
    assert final_facts(training)["skipped_steps"] == 2
    assert all(value.isfinite().all() for value in weights(training).values())
    assert_close(training, named(root, "bad", 0), 1e-6)
    assert all(line["loss"] is not None for line in steps(training) if "loss" in line)


def test_a_diverged_run_leaves_its_checkpoints(root: Path, promise: Any) -> None:
    training = named(root, "diverged", 1, max_nonfinite_steps=2)
    assert [path.name.split(".")[0] for path in (training.path / "checkpoints").iterdir()] == [
        "step-000000004"
    ]
    assert not (training.path / "final").exists()
    promise(20, "K = 2 here: stopped at the second non-finite step, step 6, weights before it kept")


def test_a_users_error_that_every_worker_meets_restarts_nothing(root: Path) -> None:
    assert json.loads((root / "failure.json").read_text())["kind"] == "InputError"
    assert {path.name for path in root.glob("ended-*")} == {"ended-0", "ended-1"}


@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_change_nothing_but_rounding(root: Path, stage: int) -> None:
    assert_close(still(root, "parts", stage, micro_batch=1), still(root, "two", min(stage, 1)), 1e-5)


def test_the_number_of_workers_changes_nothing_but_rounding(root: Path) -> None:
    assert_close(still(root, "one", 1), still(root, "two", 1), 1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_goes_on_at_another_number_of_workers(root: Path, stage: int) -> None:
    assert_close(halted(root, stage), still(root, "two", stage), 1e-5)
    assert not (halted(root, stage).path / "universal").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_what_does_not_learn_stays_as_it_was_and_is_resumed_with_the_rest(root: Path, stage: int) -> None:
    """Also in one worker where two began; averages are of what learns."""
    whole = partly(root, "whole", stage)
    torch.manual_seed(whole.seed)
    start = dict(whole.build().model().named_parameters())
    final = weights(whole)
    still_there = {name for name, value in start.items() if torch.equal(final[name], value)}
    assert still_there == {"inner.weight", "inner.bias"}
    assert_close(partly_halted(root, stage), whole, 1e-5)
    for path in whole.path.glob("checkpoints/*/ema.safetensors"):
        assert load_file(path).keys() == start.keys() - still_there


@pytest.mark.parametrize("stage", CODEC_STAGES)
def test_an_adversarial_autoencoder_with_a_learned_codebook_is_one_training(root: Path, stage: int) -> None:
    """At every ZeRO stage it may have, on two workers and on one, and begun by two and ended by one.

    The discriminator is left out: the gradient of a bias before a normalisation is rounding, which AdamW enlarges.
    """
    two = codec(root, "two", stage)
    assert final_facts(two)["skipped_steps"] == 0
    moved = weights(two)["codec.quantiser.learner.count"]
    assert len(moved.unique()) > 2
    expected = codec_state(weights(two))
    assert expected
    for other in (codec(root, "one", 0), codec(root, "halted", stage, True)):
        torch.testing.assert_close(codec_state(weights(other)), expected, rtol=0, atol=1e-4)


def test_recomputed_activations_and_offloaded_state_change_nothing(root: Path) -> None:
    kept = weights(blocks(root, "kept"))
    for other in [
        blocks(root, "offloaded"),
        *(blocks(root, "recomputed", zero_stage=s) for s in RECOMPUTED_STAGES),
    ]:
        assert weights(other).keys() == kept.keys()
        assert_close(other, blocks(root, "kept"), 1e-6)


def test_timings_hold_percentiles_memory_and_rates(root: Path) -> None:
    lines = (named(root, "whole", 1).path / "timings.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert 0 < line["step_time_p50_s"] <= line["step_time_p95_s"] <= line["step_time_p99_s"]
        assert line["memory_gib"] > 0.05
        assert line["tflops_per_worker"] > 0
        assert 0 <= line["data_wait_share"] <= 1
        assert 0 <= line["checkpoint_share"] <= 1


def test_a_checkpoint_holds_data_only(root: Path) -> None:
    for stage in STAGES:
        found = (named(root, "whole", stage).path / "checkpoints").rglob("*.*")
        assert {path.suffix for path in found if path.is_file()} == {".pt", ".json", ".safetensors"}


def test_no_row_to_train_on_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = tiny_training(tmp_path)
    monkeypatch.setattr("tests.support.tiny_training.TinyObjective.rows", lambda self: TinyRows((0, 0)))
    monkeypatch.setattr("corgi.training.loop.prepare_process", lambda settings: None)
    with pytest.raises(InputError, match="there are no training rows"):
        train_loop(training)
