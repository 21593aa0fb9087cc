"""What an earlier commit finished is recognised: its run folders are kept here, and today's recipe runs no stage over them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corgi.flow.dag import Dag, Selection, open_dag
from corgi.planning import stages as planning
from corgi.settings.recipe import load
from pipelines.full import stages
from tests.support.waiting import PATIENCE_S

HOME = Path(__file__).resolve().parents[2]
FINISHED = Path(__file__).parent / "finished"
SMOKE = "smoke-0a7c469"
WHY = "one noise stream, Philox4x32-10"
TABLE = "a training table"
REDONE: dict[str, str] = {"pack": TABLE, "prior": WHY, "decoder": WHY, "evaluate": WHY}
"""Stages of the smoke recipe that run again over the store of 0a7c469, and why, in the words of CHANGELOG.md; those that
need one of them are redone too and not listed. Plan, download and embed have no place here: their results have not changed."""


def arguments(folder: Path) -> list[str]:
    listed = f"plan.input={folder / 'urls-300.parquet'}"
    return [str(HOME / "pipelines" / "recipes" / "smoke.yaml"), f"root={folder}", listed]


def opened(folder: Path, *overrides: str) -> Dag:
    recipe, *given = arguments(folder)
    settings = load(recipe, [*given, *overrides])
    return open_dag(stages(settings), settings)


def redone(dag: Dag) -> set[str]:
    return {step.stage.name for step in dag.plan(Selection()) if step.done is None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the finished run, at a place of its own."""
    return Path(shutil.copytree(FINISHED / SMOKE, tmp_path / "moved"))


def test_the_recipe_runs_nothing_again_but_what_the_changelog_names(folder):
    dag = opened(folder)
    following = {later for name in REDONE for later in dag.following(stage_of(dag, name))}
    assert redone(dag) == following
    if not following:
        assert dag.execute(Selection(), lambda line: None) == 0


def stage_of(dag, name):
    return next(stage for stage in dag.stages if stage.name == name)


def test_the_changelog_names_each_stage_that_is_redone_and_why():
    told = (HOME / "CHANGELOG.md").read_text()
    assert [name for name, why in REDONE.items() if f"`{name}`" not in told or why not in told] == []
    assert not {"plan", "download", "embed"} & set(REDONE)


def test_the_command_says_so_and_imports_neither_ray_nor_torch(folder):
    line = "import sys, full; full.main(); print('imported', {'ray', 'torch'} & set(sys.modules))"
    asked = [sys.executable, "-c", line, *arguments(folder), "--plan"]
    done = subprocess.run(
        asked, capture_output=True, text=True, check=True, timeout=PATIENCE_S, cwd=HOME / "pipelines"
    )
    *told, imported = [text.split()[:2] for text in done.stdout.splitlines()]
    assert imported == ["imported", "set()"]
    assert ["plan", "done"] in told
    assert len([state for _, state in told if state == "done"]) == 11 - len(redone(opened(folder)))


@pytest.mark.parametrize(
    "override", ["plan.seed=5", "download.image_size=64", "embed.batch_size=32", "shift.num_clusters=3"]
)
def test_what_is_asked_otherwise_is_not_taken_for_done(folder, override):
    assert override.partition(".")[0] in redone(opened(folder, override))


def test_a_raised_format_makes_the_plan_again_and_asks_for_no_picture_again(folder, monkeypatch):
    monkeypatch.setitem(planning.FORMAT_VERSIONS, "csv", 1)
    assert "plan" not in redone(opened(folder))  # its list is Parquet
    monkeypatch.setitem(planning.FORMAT_VERSIONS, "parquet", 1)
    dag = opened(folder)
    before = dag.run.stages()["plan"]
    assert "plan" in redone(dag)
    said: list[str] = []
    assert dag.execute(Selection(last="shift"), said.append) == 1
    recognised = {line.split(":")[0] for line in said if line.endswith("done before")}
    assert recognised >= {"download", "tower", "embed", "curate", "shift"}
    after = dag.run.stages()["plan"]
    assert (after.digest, after.parts) == (before.digest, {"parquet": 1})
    assert after.key != before.key


def test_another_list_is_not_taken_for_done(folder):
    place = folder / "urls-300.parquet"
    pq.write_table(pq.read_table(place).slice(1), place)
    assert "plan" in redone(opened(folder))


def test_what_is_kept_here_is_small_and_of_no_machine():
    files = [path for path in FINISHED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2 * 2**20
    texts = [path.read_text() for path in files if path.suffix == ".json"]
    places = [place for text in texts for place in re.findall(r'"(?:/|[a-z0-9]+://)[^"]*"', text)]
    assert places == []
