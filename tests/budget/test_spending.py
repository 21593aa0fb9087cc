"""What a run has cost: time by price, noted once per manifest, and nothing where something is not known."""

from pathlib import Path

import pytest

from corgi.budget import spending
from corgi.settings.recipe import Recipe
from corgi.settings.recipe import load as load_recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from tests.cluster.versions import CLUSTER, REPOSITORY
from tests.support import tables


def recipe_for(*overrides: str) -> Recipe:
    return load_recipe(REPOSITORY / "pipelines/recipes/laion-b32.yaml", list(overrides))


def on_aws() -> Recipe:
    return recipe_for(f"cluster.file={CLUSTER / 'aws.yaml'}")


def run_of(folder: Path, recipe: Recipe, seconds: float | None) -> Run:
    run = tables.new_run(folder)
    run.note(recipe=recipe.model_dump(mode="json"))
    rows = RowCounts(rows_in=9, kept=9)
    tables.commit_stage(run, "plan", {"all": tables.Output(rows, {}, {}, {})}, seconds=seconds)
    return run


@pytest.mark.parametrize("stage", ["plan", "download", "embed", "prior"])
def test_a_cost_is_proportional_to_the_time(stage: str) -> None:
    one, three = (spending.dollars(on_aws(), stage, seconds) for seconds in (100.0, 300.0))
    assert one is not None
    assert three is not None
    assert 0 < one.low <= one.high
    assert (three.low, three.high) == pytest.approx((3 * one.low, 3 * one.high))


def test_a_stage_is_noted_once_with_its_manifest(tmp_path: Path) -> None:
    run = run_of(tmp_path, on_aws(), 7200.0)
    spending.note(run)
    noted = run.facts.get("dollars", {})["plan"]
    cost = spending.dollars(on_aws(), "plan", 7200.0)
    assert cost is not None
    assert noted == {"manifest": run.stages()["plan"].path, "between": [cost.low, cost.high]}
    run.note(recipe=recipe_for(f"cluster.file={CLUSTER / 'gcp.yaml'}").model_dump(mode="json"))
    spending.note(run)
    assert run.facts.get("dollars", {})["plan"] == noted, (
        "what was paid does not change with a later cluster file"
    )


def test_without_a_time_or_a_cluster_file_nothing_is_noted(tmp_path: Path) -> None:
    for name, recipe, seconds in (("a", on_aws(), None), ("b", recipe_for("cluster.file="), 60.0)):
        run = run_of(tmp_path / name, recipe, seconds)
        spending.note(run)
        assert not run.facts.get("dollars")
