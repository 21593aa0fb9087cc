import dataclasses
import json
import logging
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corgi.settings.errors import ClusterError
from corgi.settings.training import TrackingSettings
from corgi.tracking.tracker import Tracker, _mode, run_id, sync_offline
from corgi.training.objective import Shown
from corgi.training.training import Training
from tests.support.offline import await_exit, offline_steps
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


def test_offline_attempts_are_one_run_whose_steps_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    training = tracked(tmp_path, "auto")
    for start in (0, 4):  # the first attempt dies after step 6, its last checkpoint is that of step 4
        tracker = Tracker(training, start)
        for step in (start + 2, start + 4):
            tracker.log(step, {"loss": 0.5})
        picture = np.full((4, 6, 3), start, np.uint8)
        tracker.show(start + 4, Shown({"grid": picture}, {"cosine": np.linspace(0, 1, 9)}))
        tracker.commit()
        tracker.log(start + 6, {"loss": 0.25})
        tracker.finish()
    folders = sorted((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
    assert [folder.parents[1].name for folder in folders] == ["0000", "0001"]
    assert all(folder.name.endswith(run_id(training)) for folder in folders)
    for folder in folders:
        await_exit(folder)
    assert [offline_steps(folder) for folder in folders] == [[2, 4], [6, 8]]
    assert [line["step"] for line in lines(training.metrics_file)] == [2, 4, 6, 8, 10]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "000000004-grid.png",
        "000000008-grid.png",
    ]
    assert list(folders[0].glob("files/media/images/pictures/*.png"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_lines_that_an_attempt_never_handed_over_are_in_the_next_ones_folder(tmp_path: Path) -> None:
    """An attempt killed in its first second may leave a folder without W&B's file."""
    training = tracked(tmp_path)
    for start in (0, 4, 8):
        tracker = Tracker(training, start)
        for step in (start + 2, start + 4):
            tracker.log(step, {"loss": 1.0 / step}, {"samples_per_s": 2.0})
        tracker.commit()
        tracker.finish()
        folder = max((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))
        await_exit(folder)
        if start == 0:
            next(folder.glob("run-*.wandb")).unlink()
    folders = sorted((tmp_path / "wandb").glob("[0-9]*/wandb/offline-run-*"))[1:]
    assert [offline_steps(folder) for folder in folders] == [[2, 4, 6, 8], [10, 12]]


@pytest.mark.parametrize("opened", [False, True])
def test_a_server_that_hangs_costs_the_end_two_percent_or_a_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    import threading

    release = threading.Event()
    hanging = types.SimpleNamespace(
        define_metric=lambda *_, **__: None, log=lambda *_, **__: release.wait(20), step=0
    )
    fake_wandb(monkeypatch, lambda **_: hanging if opened else release.wait(20))
    monkeypatch.setattr("corgi.tracking.tracker._FINISH_LEAST_S", 0.5)
    tracker = Tracker(tracked(tmp_path, "online"), 0)
    tracker.log(1, {"loss": 1.0})
    time.sleep(0.1)
    start = time.perf_counter()
    tracker.finish()
    waited = time.perf_counter() - start
    release.set()
    assert (0.4 < waited < 1.5) if opened else waited < 0.2


def test_offline_folders_are_sent_in_the_order_of_the_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 0, 10, 2):
        (tmp_path / f"prior/wandb/{number:04d}/wandb/offline-run-x-{number}").mkdir(parents=True)
    (tmp_path / "prior" / "wandb.json").write_text('{"id": "abc"}')
    sent: list[list[str]] = []

    def taken(command: list[str], **_: Any) -> Any:
        sent.append(command)
        return types.SimpleNamespace(
            returncode=0 if len(sent) < 6 else 1, stderr="denied: canary-77", stdout=""
        )

    monkeypatch.setattr("corgi.tracking.tracker.subprocess.run", taken)
    monkeypatch.setenv("WANDB_API_KEY", "canary-77")
    assert sync_offline(tmp_path) == 4
    assert [command[-1][-6:].rpartition("-")[2] for command in sent] == ["0", "1", "2", "10"]
    assert all("--id" in command and "abc" in command and "canary-77" not in command for command in sent)
    sync_offline(tmp_path / "nothing")
    with pytest.raises(ClusterError, match="was not taken by W&B") as caught:
        sync_offline(tmp_path)
    assert "canary-77" not in str(caught.value)


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
    monkeypatch.setattr("corgi.tracking.tracker._FINISH_TIMEOUT_S", 0.2)
    tracker = Tracker(tracked(tmp_path), 0)
    start = time.perf_counter()
    for step in range(1, 2001):
        tracker.log(step, {"loss": 1.0})
    tracker.finish()
    assert time.perf_counter() - start < 5
    release.set()
    assert len(lines(tmp_path / "metrics.jsonl")) == 2000
