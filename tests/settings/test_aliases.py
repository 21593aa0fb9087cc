"""img2dataset's options on our command line: every alias names a setting, every other is refused or left alone."""

import ast
import importlib.util
from pathlib import Path

import pytest

from corgi.settings.aliases import IMG2DATASET, WITHOUT_EQUAL, with_our_names
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe

LATER = {"plan.verify_hash", "plan.save_additional_columns"}


@pytest.mark.parametrize("spelling", [["--image_size=128"], ["--image_size", "128"], ["image_size=128"]])
def test_three_spellings_are_one_setting(spelling: list[str]) -> None:
    assert with_our_names(["recipe.yaml", *spelling, "--plan"]) == [
        "recipe.yaml",
        "download.image_size=128",
        "--plan",
    ]


def test_what_is_ours_stays() -> None:
    ours = ["recipe.yaml", "download.retries=3", "--only", "download", "root=/x", "image_size"]
    assert with_our_names(ours) == ours


@pytest.mark.parametrize("option", WITHOUT_EQUAL)
def test_an_option_without_equal_is_one_line(option: str) -> None:
    with pytest.raises(SettingsError, match=option) as caught:
        with_our_names([f"--{option}=1"])
    assert "\n" not in str(caught.value)


def test_an_option_without_value_is_one_line() -> None:
    with pytest.raises(SettingsError, match="no value"):
        with_our_names(["--timeout"])


@pytest.mark.parametrize("path", sorted({*IMG2DATASET.values()} - LATER))
def test_every_alias_names_a_setting(path: str) -> None:
    towers = [{"name": "b", "model": "RN50", "pretrained": "random"}]
    section: object = Recipe.model_validate({"name": "x", "embed": {"towers": towers}})
    for part in path.split("."):
        assert hasattr(section, part), path
        section = getattr(section, part)


def test_every_option_of_the_library_is_known() -> None:
    spec = importlib.util.find_spec("img2dataset")  # read, not imported: that takes ten seconds
    assert spec is not None
    assert spec.submodule_search_locations
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / "main.py").read_text())
    (download,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "download"
    )
    assert {argument.arg for argument in download.args.args} == set(IMG2DATASET) | set(WITHOUT_EQUAL)
