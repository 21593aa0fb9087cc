"""`ray job submit` to a head with token authentication, from a clone in another folder; twice."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from corgi.demo.site import Site
from corgi.demo.url_list import HOST, write_url_list
from tests.support.ports import free_port
from tests.support.upload import MAX_UPLOAD_BYTES, packed

HOME = Path(__file__).resolve().parents[3]
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start a Ray head that asks for a token; end the processes it started, by pid."""
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    dashboard = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHONPATH")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    start = [
        *(
            RAY,
            "start",
            "--head",
            "--block",
            "--num-cpus=4",
            "--node-ip-address=127.0.0.1",
            f"--port={free_port()}",
        ),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--object-store-memory=300000000"),
        *("--include-dashboard=true", f"--temp-dir={_short_folder()}"),
    ]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(start, env=environment, cwd=elsewhere, stdout=log, stderr=log)
        try:
            _wait_for_jobs_api(environment, process, tmp_path / "head.log")
            yield environment
        finally:
            process.terminate()
            process.wait(timeout=60)


def _short_folder() -> str:
    """Return a new folder whose sockets' paths stay under the 107 bytes a socket may have."""
    folder = Path("/tmp") / f"ray-{secrets.token_hex(4)}"  # noqa: S108 - the name is new and secret
    folder.mkdir(mode=0o700)
    return str(folder)


def _wait_for_jobs_api(environment: dict[str, str], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while (
        subprocess.run([RAY, "job", "list"], env=environment, capture_output=True, check=False).returncode
        != 0
    ):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(1)


def _submit(
    clone: Path, environment: dict[str, str], arguments: list[str]
) -> subprocess.CompletedProcess[str]:
    command = [
        RAY,
        "job",
        "submit",
        "--working-dir",
        ".",
        "--",
        "python",
        "pipelines/full.py",
        "pipelines/recipes/smoke.yaml",
        *arguments,
    ]
    for _ in range(60):  # the jobs API answers some seconds before the head's agent takes jobs
        done = subprocess.run(
            command, env=environment, cwd=clone, capture_output=True, text=True, timeout=600, check=False
        )
        if "No available agent" not in done.stdout + done.stderr:
            return done
        time.sleep(1)
    raise AssertionError("the head took no job for a minute")


@pytest.mark.flow
@pytest.mark.timeout(1500)
def test_a_submitted_job_runs_the_whole_flow_and_a_second_skips_it(head, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(
        HOME,
        clone,
        ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", "*.egg-info", ".*_cache"),
    )
    packed(clone, tmp_path / "clone.zip")
    assert (tmp_path / "clone.zip").stat().st_size < MAX_UPLOAD_BYTES
    pictures = subset(packaged().pictures, 120)
    rasterise(pictures, tmp_path / folder_name(packaged()))
    write_url_list(tmp_path / "urls.parquet", pictures, packaged().credit)
    with Site(tmp_path / folder_name(packaged()), free_port()) as site:
        arguments = [
            f"root={tmp_path / 'runs'}",
            f"plan.input={tmp_path / 'urls.parquet'}",
            "plan.test_share=0.3",
            f'download.resolve=["{HOST}:80={site.address}"]',
            f'download.allow_private=["{site.address}"]',
        ]
        first = _submit(clone, head, arguments)
        assert first.returncode == 0, first.stdout[-6000:] + first.stderr[-3000:]
        assert (tmp_path / "runs" / "smoke" / "report.html").exists()
        second = _submit(clone, head, arguments)
        assert second.returncode == 0
        assert "0 stages ran" in second.stdout
    relative = _submit(clone, head, ["root=runs"])
    assert relative.returncode != 0
    assert "root='runs' is relative" in relative.stdout + relative.stderr


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_without_the_token_nothing_is_submitted(head, tmp_path):
    stranger = {**head, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    (tmp_path / "wrong").write_text("0" * 64)
    done = _submit(HOME, stranger, ["--plan"])
    assert done.returncode != 0
    assert (
        "Unauthenticated" in done.stdout + done.stderr
        or "401" in done.stdout + done.stderr
        or "oken" in done.stdout + done.stderr
    )
