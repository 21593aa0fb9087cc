import dataclasses
import json
import logging
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from corgi.settings.training import TrackingSettings
from corgi.training.tracking import Tracker, _mode, run_id
from corgi.training.training import Training
from tests.support.tiny_training import tiny_training


def tracked(tmp_path: Path, mode: str = "offline") -> Training:
    return dataclasses.replace(
        tiny_training(tmp_path), tracking=TrackingSettings.model_validate({"mode": mode})
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_resume_leaves_neither_gap_nor_double(tmp_path: Path) -> None:
    training = tracked(tmp_path, "disabled")
    tracker = Tracker(training, 0)
    for step in (2, 4, 6, 8):
        tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 3.0})
    with training.metrics_file.open("a") as handle:
        handle.write('{"step": 10, "lo')
    tracker = Tracker(training, 4)
    for step in (6, 8, 10):
        tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 4.0})
    tracker.finish()
    assert [line["step"] for line in lines(training.metrics_file)] == [2, 4, 6, 8, 10]
    assert [line["samples_per_s"] for line in lines(tmp_path / "timings.jsonl")] == [3.0, 3.0, 4.0, 4.0, 4.0]
    assert "samples_per_s" not in training.metrics_file.read_text()


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    tracker = Tracker(tracked(tmp_path, "disabled"), 0)
    tracker.log(1, {"loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}]


def test_offline_runs_of_all_attempts_carry_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    training = tracked(tmp_path, "auto")
    for start in (0, 5):
        tracker = Tracker(training, start)
        tracker.log(start + 5, {"loss": 0.5})
        tracker.finish()
        time.sleep(1.1)  # the folder's name counts seconds
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(run_id(training)) for folder in folders)
    assert all(list(folder.glob("run-*.wandb")) for folder in folders)
    assert [line["step"] for line in lines(training.metrics_file)] == [5, 10]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_without_a_key_auto_is_offline_and_never_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password canary\n")
    assert _mode("auto") == "online"
    assert _mode("disabled") == "disabled"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    assert _mode("auto") == "online"


def fake_wandb(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    module = types.ModuleType("wandb")
    module.init = init  # pyright: ignore[reportAttributeAccessIssue]
    module.Settings = lambda **_: None  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_a_tracker_that_raises_costs_one_warning_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**_: Any) -> Any:
        raise RuntimeError("login with key canary-1234 failed")

    fake_wandb(monkeypatch, init)
    monkeypatch.setenv("WANDB_API_KEY", "canary-1234")
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(tracked(tmp_path), 0)
        for step in range(1, 3001):
            tracker.log(step, {"loss": 1.0})
        tracker.finish()
    assert len(lines(tmp_path / "metrics.jsonl")) == 3000
    assert "metrics.jsonl goes on" in caplog.text
    assert "canary-1234" not in caplog.text
    assert not any(
        "canary-1234" in path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()
    )


def test_a_tracker_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    fake_wandb(monkeypatch, lambda **_: release.wait(20))
    monkeypatch.setattr("corgi.training.tracking._FINISH_TIMEOUT_S", 0.2)
    tracker = Tracker(tracked(tmp_path), 0)
    start = time.perf_counter()
    for step in range(1, 2001):
        tracker.log(step, {"loss": 1.0})
    tracker.finish()
    assert time.perf_counter() - start < 5
    release.set()
    assert len(lines(tmp_path / "metrics.jsonl")) == 2000
