"""A first recipe: whatever is answered, it loads, means what was answered, and fits on a screen."""

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.commands.starter import NO_CAPTIONS, TOWERS, Answers, commands, recipe_text
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import load
from pipelines.full import stages

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("captions", "tower", "gpu"), product(["caption", "text", NO_CAPTIONS], TOWERS, [False, True])
)
def test_every_answer_is_a_recipe_of_ten_lines_whose_stages_are_known(tmp_path, captions, tower, gpu):
    answers = Answers("cats", ("images", "s3://bucket/*.parquet"), captions, tower, gpu)
    if captions == NO_CAPTIONS and tower == "own":
        with pytest.raises(SettingsError, match="--tower public"):
            recipe_text(answers)
        return
    path = tmp_path / "cats.yaml"
    path.write_text(recipe_text(answers), encoding="utf-8")
    recipe = load(path)
    assert len(path.read_text().splitlines()) <= 10
    assert recipe.plan.input == answers.sources
    assert recipe.plan.caption_col == (None if captions == NO_CAPTIONS else captions)
    assert (recipe.tower is not None) == (tower == "own")
    assert [bool(training.use_gpu) for training in (recipe.prior.training, recipe.decoder.training)] == [
        gpu,
        gpu,
    ]
    assert "decoder" in [stage.name for stage in stages(recipe)]
    recipe.require({stage.name for stage in stages(recipe)})


@given(
    sources=st.lists(WORDS, min_size=1, max_size=3), captions=WORDS.filter(lambda text: text != NO_CAPTIONS)
)
def test_law_any_source_and_column_come_back_as_they_were_answered(tmp_path_factory, sources, captions):
    path = tmp_path_factory.mktemp("recipe") / "a.yaml"
    path.write_text(recipe_text(Answers("a", tuple(sources), captions)), encoding="utf-8")
    recipe = load(path)
    assert (recipe.plan.input, recipe.plan.caption_col) == (tuple(sources), captions)


@pytest.mark.parametrize("name", ["", "store", "../a", "a b", ".a"])
def test_a_name_that_cannot_name_a_run_is_one_line(name):
    with pytest.raises(SettingsError, match="cannot name a run"):
        recipe_text(Answers(name, ("images",)))


def test_without_captions_nothing_that_learns_from_them_is_run():
    asked = commands(Answers("a", ("images",), NO_CAPTIONS, "public"), "a.yaml")
    assert not any(line.endswith("a.yaml") for line in asked)
    assert [line.split()[-1] for line in asked] == ["shift", "shift", "autoencoder", "decoder"]


def test_the_command_writes_once_and_says_what_to_run(tmp_path):
    command = [sys.executable, str(HOME / "pipelines" / "new.py"), "cats", "--source", "images"]
    first, second = (
        subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        for _ in range(2)
    )
    assert (first.returncode, first.stderr) == (0, "")
    assert "corgi run cats.yaml" in first.stdout
    assert load(tmp_path / "cats.yaml").name == "cats"
    assert (second.returncode, second.stdout, len(second.stderr.splitlines())) == (2, "", 1)
    assert "File exists" in second.stderr
