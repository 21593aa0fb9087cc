"""A run whose root is an S3 bucket, killed half-way and resumed: the digests of a run on a disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.tables.run import Run
from tests.flow.conftest import ALL
from tests.support import toy_stages
from tests.support.s3_server import BUCKET, s3_server
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow


def start(recipe: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.toy_stages", str(recipe)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def test_a_run_on_s3_is_killed_and_resumed(finished, tmp_path, monkeypatch, promise):
    folder = tmp_path / "scratch"
    folder.mkdir()
    root = f"s3://{BUCKET}/runs"
    (folder / "recipe.yaml").write_text(f"{toy_stages.RECIPE}root: {root}\nscratch: {folder}\n")
    (folder / "wait").write_text("squares 2")
    with s3_server() as environment:
        killed = start(folder / "recipe.yaml", environment)
        wait_until(lambda: killed.poll() is not None or (folder / "waiting").exists(), "the run waits")
        assert killed.poll() is None, killed.communicate()
        second = start(folder / "recipe.yaml", environment)
        assert "run toy is held by process" in second.communicate(timeout=PATIENCE_S)[1]
        assert second.returncode == 5
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=PATIENCE_S)
        (folder / "wait").unlink()
        resumed = start(folder / "recipe.yaml", environment)
        said, complained = resumed.communicate(timeout=PATIENCE_S)
        assert resumed.returncode == 0, complained
        assert f"{root}/toy/report.html" in said
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        stages = Run.open(f"{root}/toy").stages()
    assert (folder / "made.txt").read_text().split() == ALL
    assert {name: m.digest for name, m in stages.items()} == {
        name: m.digest for name, m in finished.opened().stages().items()
    }
    promise(1, "on S3, killed at half a stage and resumed: digests equal to a disk's, 0 shards made twice")


@pytest.mark.parametrize("gone", ["AWS_ENDPOINT_URL"])
def test_a_server_that_is_not_there_is_one_line(tmp_path, gone):
    """Nothing is committed; the message names the URL."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"{toy_stages.RECIPE}root: s3://{BUCKET}/runs\nscratch: {folder}\n")
    nobody = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    driver = start(folder / "recipe.yaml", {**nobody, gone: "http://127.0.0.1:9"})
    complained = driver.communicate(timeout=170)[1]
    assert driver.returncode == 4
    assert len(complained.splitlines()) == 1
    assert f"s3://{BUCKET}/runs" in complained
