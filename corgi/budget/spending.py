"""The cost of a run's stages: the time of each on the nodes of its workers, at the prices of the recipe's table."""

from corgi.budget.machines import demand_of, of_stage
from corgi.budget.rates import Interval, exactly, load
from corgi.flow.node_types import read
from corgi.settings.recipe import Recipe
from corgi.tables.run import Run


def note(run: Run) -> None:
    """Record in run.json the cost of each complete stage, once per manifest; nothing if the recipe names no cluster file.

    A stage without a time or a price has no cost. Idle nodes, storage and traffic are not counted.

    Raises:
        InputError: the cluster file or the table of rates cannot be read.

    """
    recipe = Recipe.model_validate(run.facts.get("recipe", {}))
    if not recipe.cluster.file:
        return
    noted = run.facts.get("dollars", {})
    found = {}
    for stage, manifest in run.stages().items():
        known = noted.get(stage)
        if known and known["manifest"] == manifest.path:
            found[stage] = known
        elif manifest.seconds is not None and (cost := dollars(recipe, stage, manifest.seconds)):
            found[stage] = {"manifest": manifest.path, "between": [cost.low, cost.high]}
    if found != noted:
        run.note(dollars=found)


def dollars(recipe: Recipe, stage: str, seconds: float) -> Interval | None:
    """Return the cost of a stage's nodes for some seconds; None if a node has no price.

    Raises:
        InputError: the cluster file or the table of rates cannot be read.

    """
    cluster = read(recipe.cluster.file)
    machines = of_stage(demand_of(recipe, stage, cluster), cluster, load(recipe.cluster.rates))
    price = machines.dollars_per_hour
    return None if price is None else exactly(seconds / 3600) * price
