"""A W&B that answers slowly or never: what it costs the training, measured in the training's own thread."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from corgi.settings.training import TrackingSettings
from corgi.tracking import tracker as tracking
from corgi.tracking import wandb_sender
from corgi.tracking.tracked_run import TrackedRun
from corgi.training.loop import train_loop
from corgi.training.training import Training
from tests.support.smoke_run import KEY
from tests.support.tiny_training import tiny_training
from tests.support.wandb_server import wandb_server
from tests.support.workers import run_workers

STEPS, PAUSE_S = 600, 0.02
NEVER_S = 1000.0


class Timed(tracking.Tracker):
    """Adds up the seconds its callers, all in the training's thread, spend in it."""

    steps_s = end_s = 0.0

    def __init__(self, run: TrackedRun, step: int) -> None:
        start = time.perf_counter()
        super().__init__(run, step)
        Timed.steps_s += time.perf_counter() - start

    def log(self, *arguments: Any, **named: Any) -> None:
        start = time.perf_counter()
        super().log(*arguments, **named)
        Timed.steps_s += time.perf_counter() - start

    def commit(self) -> None:
        start = time.perf_counter()
        super().commit()
        Timed.steps_s += time.perf_counter() - start

    def finish(self) -> None:
        start = time.perf_counter()
        super().finish()
        Timed.end_s += time.perf_counter() - start


def timed(training: Training) -> None:
    tracking.Tracker = Timed
    start = time.perf_counter()
    train_loop(training)
    facts = {"run_s": time.perf_counter() - start, "steps_s": Timed.steps_s, "end_s": Timed.end_s}
    (training.path / "facts.json").write_text(json.dumps(facts))
    os._exit(0)  # as Ray ends a worker: W&B's own exit hook would wait for its server


@pytest.mark.parametrize(("delay_s", "told"), [(2.0, "answers after 2 s"), (NEVER_S, "never answers")])
@pytest.mark.timeout(300)
def test_what_a_slow_server_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promise: Any, delay_s: float, told: str
) -> None:
    settings: dict[str, Any] = {"num_steps": STEPS, "log_every_steps": 1, "checkpoint_every_steps": 100}
    training = tiny_training(tmp_path / "tiny", arguments={"pause_s": PAUSE_S}, **settings)
    training = dataclasses.replace(training, tracking=TrackingSettings(mode="online"))
    with wandb_server(delay_s) as heard:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", heard.address)
        run_workers(timed, 1, training)
    assert heard.paths, "W&B was not called: the test shows nothing"
    facts = json.loads((training.path / "facts.json").read_text())
    share = facts["steps_s"] / facts["run_s"]
    assert share < 0.02
    assert facts["end_s"] < max(0.03 * facts["run_s"], wandb_sender.FINISH_LEAST_S + 1)
    steps = [json.loads(line)["step"] for line in training.metrics_file.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    promise(
        34,
        f"a server that {told}, a line per step of 20 ms: {share:.2%} of the training thread's time, and {facts['end_s']:.1f} s at the end of {facts['run_s']:.0f} s; 0 of {STEPS} lines of metrics.jsonl lost",
    )
