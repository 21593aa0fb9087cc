"""Every stage of both pipelines can be asked all it declares: what its methods import is there and takes what it is given."""

import ast
import importlib
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.flow.stage import FollowingStage, RevisableStage, Stage
from corgi.settings.recipe import Recipe
from pipelines import full

sys.modules.setdefault("full", full)  # as a script sees it

from pipelines import compare, index  # noqa: E402 - import full

HOME = Path(__file__).resolve().parents[2]
METHODS = ("run", "revise", "follow", "fingerprint", "parts", "cost", "side_by_side")
KINDS_OF_STAGE = (Stage, RevisableStage, FollowingStage)
KINDS = ("list", "list and tower", "list and cascade", "vectors")


def recipe_of(folder: Path, kind: str) -> Recipe:
    """Return a recipe over a list of one URL, or over vectors of one row."""
    table = pa.table({"url": ["http://a.test/1.png"], "caption": ["one"]})
    values: dict[str, Any] = {"name": "a", "root": str(folder / "runs")}
    towers = [{"name": "b32", "model": "ViT-B-32", "pretrained": "random"}]
    if kind == "vectors":
        for name in ("img_emb", "text_emb", "metadata"):
            (folder / "vectors" / name).mkdir(parents=True)
        pq.write_table(table, folder / "vectors" / "metadata" / "metadata_0.parquet")
        for name in ("img_emb", "text_emb"):
            np.save(folder / "vectors" / name / f"{name}_0.npy", np.ones((1, 4), np.float16))
        return Recipe.model_validate({**values, "embed": {"input": [str(folder / "vectors")]}})
    pq.write_table(table, folder / "list.parquet")
    asked = {"plan": {"input": [str(folder / "list.parquet")]}, "embed": {"towers": towers}}
    gpus = {"training": {"use_gpu": True}}
    steps = {"upsampler": gpus, "second_upsampler": {"low_side": 256, "side": 1024, **gpus}}
    sections = {"tower": {}} if "tower" in kind else steps if "cascade" in kind else {}
    return Recipe.model_validate({**values, **asked, **sections})


@pytest.fixture(params=KINDS)
def recipe(request, tmp_path) -> Recipe:
    return recipe_of(tmp_path, request.param)


@pytest.fixture(params=[full.stages, compare.stages, index.stages], ids=["full", "compare", "index"])
def stages(request, recipe) -> list[Stage]:
    return request.param(recipe)


def calls_of(method: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], ast.Call]]:
    """Yield what a method imports and calls, resolved."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    found = {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in found:
            yield found[node.func.id], node


def methods_of(stage: Stage) -> dict[str, Callable[..., Any]]:
    return {name: getattr(stage, name) for name in METHODS if hasattr(stage, name)}


def test_what_a_method_imports_is_there_and_takes_what_it_is_given(stages):
    for stage in stages:
        called: dict[str, int] = {}
        for name, method in methods_of(stage).items():
            for imported, node in calls_of(method):
                given = {word.arg: None for word in node.keywords if word.arg}
                inspect.signature(imported).bind(*node.args, **given)
                called[name] = called.get(name, 0) + 1
        assert called["run"] == 1, stage.name
        assert ("revise" in called) == isinstance(stage, RevisableStage), stage.name
        assert ("follow" in called) == isinstance(stage, FollowingStage), stage.name


def test_methods_have_the_signature_that_the_flow_calls(stages):
    declared = {name: value for kind in KINDS_OF_STAGE for name, value in vars(kind).items()}
    for stage in stages:
        for name, method in methods_of(stage).items():
            wanted = list(inspect.signature(declared[name]).parameters)
            assert ["self", *inspect.signature(method).parameters] == wanted, (stage.name, name)


def test_inputs_are_earlier_stages_and_settings_are_sections(stages, recipe):
    for number, stage in enumerate(stages):
        assert {*stage.inputs, *stage.reads} <= {other.name for other in stages[:number]}, stage.name
        assert stage.partition is None or stage.partition in stage.inputs
        assert set(stage.settings) <= set(type(recipe).model_fields)
        assert stage.run_with is None or stage.run_with in {other.name for other in stages}
        assert stage.title


ASKED = """
import sys
import compare, full
from corgi.settings.recipe import Recipe
for path in sys.argv[1:]:
    recipe = Recipe.model_validate_json(open(path).read())
    for pipeline in (full, compare):
        for stage in pipeline.stages(recipe):
            stage.fingerprint(recipe), stage.parts(recipe), stage.cost(recipe)
        print(pipeline.__name__, path, {"ray", "torch"} & set(sys.modules))
"""


def test_keys_and_costs_are_known_without_ray_or_torch(tmp_path):
    """Of every kind of recipe in one process; the first line that names a library says which of them imports it."""
    paths: list[Path] = []
    for number, kind in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(folder / "recipe.json")
        paths[-1].write_text(recipe_of(folder, kind).model_dump_json(exclude_defaults=True))
    command = [sys.executable, "-c", ASKED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HOME / "pipelines")
    assert done.returncode == 0, done.stderr
    expected = [f"{name} {path} set()" for path in paths for name in ("full", "compare")]
    assert done.stdout.splitlines() == expected
