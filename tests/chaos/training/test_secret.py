"""A W&B key in the node's environment is used, and is in no file, argument or line of a whole run."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.support.smoke_run import KEY, Smoke

MARKS = (KEY.encode(), base64.b64encode(f"api:{KEY}".encode()), KEY[:20].encode())


def hits(folder: Path) -> tuple[list[Path], int]:
    """Return the files that hold the key, or a half of it, and how many were read."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if any(mark in path.read_bytes() for mark in MARKS)], len(files)


@pytest.mark.flow
@pytest.mark.timeout(900)
def test_a_key_is_used_and_is_nowhere_after_a_whole_run(smoke: Smoke, tmp_path: Path, promise: Any) -> None:
    (tmp_path / "leak").write_text(f"WANDB_API_KEY={KEY}\n")
    assert hits(tmp_path) == ([tmp_path / "leak"], 1)
    assert smoke.keys_heard == {KEY}, "the key was not used: the test shows nothing"
    assert smoke.steps_heard, "no metric line reached W&B"
    logs = list((smoke.folder / "tmp").glob("**/session_*/logs/*"))
    assert any(path.name.startswith("gcs_server") for path in logs), "Ray's session is elsewhere"
    assert list((smoke.runs / "store").glob("prior/*/work/*/wandb/*/wandb/run-*/logs/*"))
    found, num_files = hits(smoke.folder)
    assert found == []
    told = [word for word in smoke.arguments if any(mark.decode() in word for mark in MARKS)]
    assert told == []
    promise(
        31,
        f"a key that W&B was called with, after a whole run: 0 hits in {num_files} files (root, home, scratch, Ray's session, output) and {len(smoke.arguments)} arguments of its processes",
    )
