"""Several trainings of one recipe: which runs are made, and their measures together in the first one's report."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from corgi.report import report
from corgi.report.seeds_command import main, name_of, overrides_of, publish
from corgi.settings.recipe import load
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from tests.support.tables import Output, commit_stage, new_run


def write_recipe(folder: Path, seeds: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"name: several\nroot: {folder}\nseeds: {seeds}\n")
    return path


def evaluated(folder: Path, name: str, cosine: float) -> Run:
    """Return a run whose evaluation measured one cosine."""
    run = new_run(folder, name)
    metrics = {"prior": {"shifted": {"8": {"cosine": cosine}}}, "notes": ["x"]}
    files = {"metrics": (".json", json.dumps(metrics).encode())}
    commit_stage(run, "evaluate", {"all": Output(RowCounts(rows_in=1, kept=1), files=files)})
    return run


def test_each_seed_is_a_run_and_only_prior_and_decoder_differ(tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, "[3, 5]"))
    assert [name_of(recipe, seed) for seed in recipe.seeds] == ["several", "several-seed-5"]
    assert overrides_of(recipe, 5) == ["name=several-seed-5", "prior.seed=5", "decoder.seed=5"]


def test_the_report_of_the_first_shows_means_with_intervals(tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, "[0, 1]"))
    first = evaluated(tmp_path, "several", 0.4)
    evaluated(tmp_path, "several-seed-1", 0.6)
    assert Path(publish(recipe)) == first.folder / "report.html"
    page = (first.folder / "report.html").read_text()
    assert "Several seeds" in page
    assert "0.5 (" in page
    again = evaluated(tmp_path, "several", 0.7)  # another evaluation: what was noted is not of it
    assert "Several seeds" not in report.render(again)


def test_every_seed_is_run_in_order_and_one_that_fails_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def ran(words: list[str], **_: object) -> SimpleNamespace:
        asked.append(words)
        return SimpleNamespace(returncode=5 if "decoder.seed=1" in words else 0)

    monkeypatch.setattr(subprocess, "run", ran)
    assert main([str(write_recipe(tmp_path, "[0, 1, 2]")), "prior.depth=2"]) == 5
    assert [words[-1] for words in asked] == ["decoder.seed=0", "decoder.seed=1"]
    assert all("prior.depth=2" in words for words in asked)


@pytest.mark.parametrize(("seeds", "words"), [("[]", "fewer than two"), ("[1, 1]", "given twice")])
def test_seeds_that_show_nothing_are_one_line(
    tmp_path: Path, seeds: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write_recipe(tmp_path, seeds))]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
