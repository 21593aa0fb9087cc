import json
import logging
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corgi.settings.training import TrackingSettings
from corgi.tracking import offline
from corgi.tracking.tracked_run import Shown, TrackedRun
from corgi.tracking.tracker import Tracker
from corgi.tracking.wandb_sender import run_id
from tests.support.offline import offline_steps


def tracked(tmp_path: Path, mode: str = "offline") -> TrackedRun:
    tracking = TrackingSettings.model_validate({"mode": mode})
    return TrackedRun("tiny", tmp_path, "tests", tracking, {"seed": 5})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_resume_leaves_neither_gap_nor_double(tmp_path: Path) -> None:
    run = tracked(tmp_path, "disabled")
    tracker = Tracker(run, 0)
    for step in (2, 4, 6, 8):
        tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 3.0})
    with run.metrics_file.open("a") as handle:
        handle.write('{"step": 10, "lo')
    tracker = Tracker(run, 4)
    for step in (6, 8, 10):
        tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 4.0})
    tracker.finish()
    assert [line["step"] for line in lines(run.metrics_file)] == [2, 4, 6, 8, 10]
    assert [line["samples_per_s"] for line in lines(tmp_path / "timings.jsonl")] == [3.0, 3.0, 4.0, 4.0, 4.0]
    assert "samples_per_s" not in run.metrics_file.read_text()


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    tracker = Tracker(tracked(tmp_path, "disabled"), 0)
    tracker.log(1, {"loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5})
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}]


def test_offline_attempts_are_one_run_whose_steps_continue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracked(tmp_path)
    for start in (0, 4):  # the first attempt dies after step 6, its last checkpoint is that of step 4
        tracker = Tracker(run, start)
        for step in (start + 2, start + 4):
            tracker.log(step, {"loss": 0.5})
        picture = np.full((4, 6, 3), start, np.uint8)
        tracker.show(start + 4, Shown({"grid": picture}, {"cosine": np.linspace(0, 1, 9)}))
        tracker.commit()
        tracker.log(start + 6, {"loss": 0.25})
        tracker.finish()
    folders = sorted((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
    assert [folder.parents[1].name for folder in folders] == ["0000", "0001"]
    assert all(folder.name.endswith(run_id(run)) for folder in folders)
    assert [offline_steps(folder) for folder in folders] == [[2, 4], [6, 8]]
    assert [line["step"] for line in lines(run.metrics_file)] == [2, 4, 6, 8, 10]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "000000004-grid.png",
        "000000008-grid.png",
    ]
    assert list(folders[0].glob("files/media/images/pictures/*.png"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_lines_that_an_attempt_never_handed_over_are_in_the_next_ones_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt killed in its first second may leave a folder without W&B's file."""
    monkeypatch.setattr(offline, "QUIET_S", 0.5)
    run = tracked(tmp_path)
    for start in (0, 4, 8):
        tracker = Tracker(run, start)
        for step in (start + 2, start + 4):
            tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 2.0})
        tracker.commit()
        tracker.finish()
        folder = max((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
        if start == 0:
            next(folder.glob("run-*.wandb")).unlink()
    folders = sorted((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))[1:]
    assert [offline_steps(folder) for folder in folders] == [[2, 4, 6, 8], [10, 12]]


def test_what_an_earlier_attempt_writes_late_is_not_sent_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's service may write the first attempt's last block after the second one has looked at its file."""
    run = tracked(tmp_path)
    attempt(run, 0)
    written = next(tmp_path.glob("wandb/0000/wandb/offline-run-*/run-*.wandb"))
    whole = written.read_bytes()
    written.write_bytes(whole[: len(whole) // 3])
    assert offline_steps(written.parent) == []
    polls: list[float] = []

    def late(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 2:
            written.write_bytes(whole)

    monkeypatch.setattr(offline, "sleep", late)
    attempt(run, 4)
    assert len(polls) >= 2, "nothing was late: the test shows nothing"
    monkeypatch.undo()
    second = next(tmp_path.glob("wandb/0001/wandb/offline-run-*"))
    assert offline.await_exit(tmp_path / "wandb/0001", 30)
    assert offline_steps(written.parent) == [2, 4]
    assert offline_steps(second) == [6, 8]


def test_the_file_of_a_finished_attempt_is_complete(tmp_path: Path) -> None:
    attempt(tracked(tmp_path), 0)
    written = next(tmp_path.glob("wandb/0000/wandb/offline-run-*/run-*.wandb"))
    assert offline.messages(written)[-1].WhichOneof("record_type") in ("exit", "footer", "final")


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
    assert "metrics.jsonl is still written" in caplog.text
    assert "canary-1234" not in caplog.text
    assert not any(
        "canary-1234" in path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("opened", [False, True])
def test_a_tracker_that_hangs_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    """The run ends while W&B still hangs: only afterwards is it let go."""
    release = threading.Event()
    hanging = types.SimpleNamespace(
        define_metric=lambda *_, **__: None, log=lambda *_, **__: release.wait(), step=0
    )
    fake_wandb(monkeypatch, lambda **_: hanging if opened else release.wait())
    monkeypatch.setattr("corgi.tracking.wandb_sender.FINISH_TIMEOUT_S", 0.2)
    for mode in ("offline", "online"):
        folder = tmp_path / mode
        tracker = Tracker(tracked(folder, mode), 0)
        for step in range(1, 2001):
            tracker.log(step, {"loss": 1.0})
        tracker.commit()
        tracker.finish()
        assert not release.is_set()
        assert len(lines(folder / "metrics.jsonl")) == 2000
    release.set()


def attempt(run: TrackedRun, start: int) -> None:
    """Log two lines after `start` and finish."""
    tracker = Tracker(run, start)
    for step in (start + 2, start + 4):
        tracker.log(step, {"loss": 0.5})
    tracker.commit()
    tracker.finish()
