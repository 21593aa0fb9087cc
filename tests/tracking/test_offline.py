import types
from pathlib import Path
from typing import Any

import pytest

from corgi.settings.errors import ClusterError
from corgi.tracking.offline import sync_offline


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

    monkeypatch.setattr("corgi.tracking.offline.subprocess.run", taken)
    monkeypatch.setenv("WANDB_API_KEY", "canary-77")
    assert sync_offline(tmp_path) == 4
    assert [command[-1][-6:].rpartition("-")[2] for command in sent] == ["0", "1", "2", "10"]
    assert all("--id" in command and "abc" in command and "canary-77" not in command for command in sent)
    sync_offline(tmp_path / "nothing")
    with pytest.raises(ClusterError, match="W&B did not accept") as caught:
        sync_offline(tmp_path)
    assert "canary-77" not in str(caught.value)
