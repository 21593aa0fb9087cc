"""The wheel: it installs and runs outside the checkout, with recipes, scripts and the page in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which the wheel was installed; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder), str(HOME)],
        [*pip, "install", "--no-deps", "-q", "--target", str(folder / "site"), str(folder / "corgi.whl")],
    ):
        if command[-1].endswith(".whl"):
            command[-1] = str(next(folder.glob("*.whl")))
        subprocess.run(command, check=True, timeout=300)
    return folder / "site"


def corgi(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "corgi.commands", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_everything_that_is_no_test_is_in_it(site):
    (wheel,) = site.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for pattern in (
        "corgi/**/*.py",
        "corgi/**/*.j2",
        "corgi/**/*.yaml",
        "corgi/serving/page/*",
        "pipelines/*.py",
        "pipelines/recipes/*.yaml",
    ):
        found = [path.relative_to(HOME).as_posix() for path in HOME.glob(pattern)]
        assert found, pattern
        assert set(found) <= names
    assert "corgi/py.typed" in names
    assert not any(name.startswith(("tests/", "benchmarks/", "cluster/")) for name in names)


def test_it_runs_outside_the_checkout(site, tmp_path):
    pq.write_table(pa.table({"url": ["http://a.test/1.png"], "caption": ["one"]}), tmp_path / "list.parquet")
    code = "import corgi, pipelines; print(corgi.__file__, list(pipelines.__path__))"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True)  # fmt: skip
    assert str(site / "corgi") in told.stdout
    planned = corgi(site, tmp_path, "plan", "laion-b32", "plan.input=list.parquet")
    assert planned.returncode == 0, planned.stderr
    assert "download     would run" in planned.stdout
    assert corgi(site, tmp_path, "new", "cats", "--source", "list.parquet").returncode == 0
    assert corgi(site, tmp_path, "plan", "cats.yaml").returncode == 0
    assert corgi(site, tmp_path, "serve", "runs/none").stderr.startswith("InputError: runs/none holds no run")
    assert corgi(site, tmp_path, "--version").stdout.startswith("corgi ")


def test_the_console_script_is_declared(site):
    (entry,) = site.glob("corgi-*.dist-info/entry_points.txt")
    assert "corgi = corgi.commands.console:main" in entry.read_text()
