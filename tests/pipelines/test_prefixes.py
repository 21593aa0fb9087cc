"""Only a first part of the flow: settings of the other stages may stay empty, and all that can be asked works."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture
def full(tmp_path):
    """Return a call of full.py on a recipe that names a list, and no tower."""
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.png\nhttp://127.0.0.1:1/b.png\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: small\nroot: {tmp_path / 'runs'}\nplan: {{input: {tmp_path / 'list.txt'}}}\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "pipelines/full.py", str(recipe), *arguments]
        return subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_recipe_that_only_downloads_names_no_tower(full):
    planned = full("--plan", "--until", "download")
    assert planned.returncode == 0, planned.stderr
    assert [line.split()[0] for line in planned.stdout.splitlines()] == ["plan", "download"]
    made = full("--until", "plan")
    assert made.returncode == 0, made.stderr
    for asked in ("--status", "--lineage", "--verify", "--gc"):
        shown = full(asked)
        assert (shown.returncode, shown.stderr) == (0, ""), asked
    assert (Path(made.args[2]).parent / "runs" / "small" / "report.html").is_file()


@pytest.mark.parametrize(
    "asked", [["--plan"], [], ["--only", "embed"], ["--only", "curate"], ["--from", "shift", "--plan"]]
)
def test_a_stage_that_needs_a_tower_says_so_before_anything_starts(full, asked):
    refused = full(*asked)
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("SettingsError: embed cannot run: embed.towers is empty")
    assert refused.stdout == ""
    assert not (Path(refused.args[2]).parent / "runs").exists()
