"""A function over batches: the same results in the same order, here or on a cluster."""

from corgi.flow.batches import MOST_HERE, over_batches
from corgi.settings.recipe import Recipe


def doubled(root: str, numbers: list[int]) -> list[str]:
    return [f"{root} {2 * number}" for number in numbers]


def test_few_items_need_no_cluster() -> None:
    recipe = Recipe(name="none")
    for number in (0, 1, 16, 17, MOST_HERE):
        found = list(over_batches(recipe, doubled, range(number), "root", "doubled"))
        assert found == [f"root {2 * at}" for at in range(number)]


def test_many_items_are_computed_by_tasks_in_order(ray_local: None) -> None:
    found = list(over_batches(Recipe(name="none"), doubled, range(200), "root", "doubled", size=7))
    assert found == [f"root {2 * at}" for at in range(200)]
