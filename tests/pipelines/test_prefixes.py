"""Only a first part of the flow: settings of the other stages may stay empty, and all that can be asked works."""

from pathlib import Path

import pytest

from tests.support.forks import run_forks

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe that names a list, and no tower."""
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.png\nhttp://127.0.0.1:1/b.png\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: small\nroot: {tmp_path / 'runs'}\nplan: {{input: {tmp_path / 'list.txt'}}}\n")
    return recipe


def test_a_recipe_that_only_downloads_names_no_tower(recipe: Path, tmp_path: Path) -> None:
    asked = [["--plan", "--until", "download"], ["--until", "plan"]]
    asked += [["--status"], ["--lineage"], ["--verify"], ["--gc"]]
    planned, made, *shown = run_forks(
        [("pipelines/full.py", recipe, *arguments) for arguments in asked], tmp_path / "said"
    )
    assert planned.returncode == 0, planned.stderr
    assert [line.split()[0] for line in planned.stdout.splitlines()] == ["plan", "download"]
    assert made.returncode == 0, made.stderr
    assert [(one.returncode, one.stderr) for one in shown] == [(0, "")] * 4
    assert (tmp_path / "runs" / "small" / "report.html").is_file()


def test_a_stage_that_needs_a_tower_says_so_before_anything_starts(recipe: Path, tmp_path: Path) -> None:
    asked = [["--plan"], [], ["--only", "embed"], ["--only", "curate"], ["--from", "shift", "--plan"]]
    for refused in run_forks(
        [("pipelines/full.py", recipe, *arguments) for arguments in asked], tmp_path / "said"
    ):
        assert refused.returncode == 2, refused.args
        [line] = refused.stderr.splitlines()
        assert line.startswith("SettingsError: embed cannot run: embed.towers is empty")
        assert refused.stdout == ""
    assert not (tmp_path / "runs").exists()
