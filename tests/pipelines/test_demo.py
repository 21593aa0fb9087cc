import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """
import json, signal, sys, urllib.request
import pyarrow.parquet as pq

def stopped(number, frame):
    print("flow ended in order", flush=True)
    sys.exit(9)

signal.signal(signal.SIGINT, stopped)
overrides = dict(one.split("=", 1) for one in sys.argv[2:] if "=" in one)
urls = pq.read_table(overrides["plan.input"])["url"].to_pylist()
address = json.loads(overrides["download.allow_private"])[0]
path = next(one for one in urls if "/pictures/" in one).removeprefix("http://emoji.test")
status = urllib.request.urlopen(f"http://{address}{path}").status
print(json.dumps({"arguments": sys.argv[1:], "status": status}), flush=True)
if "--wait" in sys.argv:
    signal.pause()
sys.exit(7)
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendered")
    rasterise(subset(packaged().pictures, 30), folder)
    return folder


@pytest.fixture
def page(tmp_path, rendered):
    """Copy the page beside a stand-in for full.py, with the pictures already rendered."""
    (tmp_path / "pipelines").mkdir()
    shutil.copy(ROOT / "pipelines" / "demo.py", tmp_path / "pipelines")
    (tmp_path / "pipelines" / "full.py").write_text(STAND_IN)
    shutil.copytree(rendered, tmp_path / "runs" / "openmoji-site" / folder_name(packaged()))
    return tmp_path


def start(page: Path, *arguments: str, port: int | None = None) -> subprocess.Popen:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free_port = probe.getsockname()[1]
    command = [
        sys.executable,
        "pipelines/demo.py",
        "--pictures",
        "30",
        "--port",
        str(port or free_port),
        *arguments,
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=page,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


def test_page_runs_the_flow_against_the_site_and_returns_its_code(page):
    with start(page, "download.retries=1", "--until", "embed") as demo:
        out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 7, err
    told = json.loads(out.splitlines()[-1])
    recipe, url_list, resolve, opened, credit, *rest = told["arguments"]
    address = json.loads(opened.split("=", 1)[1])[0]
    assert told["status"] == 200
    assert recipe.endswith("recipes/openmoji.yaml")
    assert url_list.startswith("plan.input=runs/openmoji-site/urls-")
    assert json.loads(resolve.split("=", 1)[1]) == [f"emoji.test:80={address}"]
    assert credit.startswith("plan.credit=Pictures, rasterised: OpenMoji")
    assert rest == ["download.retries=1", "--until", "embed"]
    assert "0 rendered now" in out
    assert "CC BY-SA 4.0" in out


def test_interrupt_reaches_the_flow_once_and_its_code_comes_back(page):
    with start(page, "--wait") as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith("{"):
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 9, err
    assert out.count("flow ended in order") == 1
    assert "Traceback" not in err


def test_taken_port_is_one_line_with_the_code_of_bad_input(page):
    with socket.create_server(("127.0.0.1", 0)) as holder, start(page, port=holder.getsockname()[1]) as demo:
        out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 3
    assert len(err.strip().splitlines()) == 1
    assert "another port" in err
    assert "{" not in out


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--pictures", "none")])
def test_wrong_option_is_refused_before_anything_starts(page, arguments):
    with start(page, *arguments) as demo:
        out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 2
    assert arguments[1] in err
    assert not out
