"""Networks at equal CPU seconds: each is a decoder that a recipe can have, and their steps fill the budget."""

import pytest

from benchmarks.arms import HOME
from benchmarks.networks import LONG, NETWORKS, SHORT, Networks, changed, steps_within
from corgi.settings.recipe import load


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_is_a_decoder_of_the_demo(name: str) -> None:
    recipe = load(HOME / "pipelines/recipes/openmoji.yaml", ["plan.input=list.parquet"])
    found = changed(recipe, NETWORKS[name])
    assert found.decoder.network == name.partition("-")[0]
    assert found.decoder.training == recipe.decoder.training
    assert found.autoencoder == recipe.autoencoder


@pytest.mark.parametrize(("start_s", "step_s"), [(0.0, 0.5), (20.0, 0.3), (299.9, 1.0)])
def test_law_start_and_steps_fill_the_budget_and_one_more_does_not_fit(start_s: float, step_s: float) -> None:
    steps = steps_within(300, start_s + SHORT * step_s, start_s + LONG * step_s)
    assert start_s + (steps + 1) * step_s > 300 - 1e-6
    assert steps == 1 or start_s + steps * step_s <= 300 + 1e-6


@pytest.mark.parametrize(("short_s", "long_s"), [(10.0, 10.0), (10.0, 9.0), (400.0, 401.0)])
def test_costs_that_say_nothing_are_an_error(short_s: float, long_s: float) -> None:
    with pytest.raises(ValueError, match="no number of steps follows"):
        steps_within(300, short_s, long_s)


def test_the_table_has_a_row_per_network_and_set_in_the_order_of_the_networks(tmp_path) -> None:
    figures = {"similarity": 0.1, "R@1": 0.2, "nearer to the retrieved one": 0.3}
    files = [
        {
            "network": name,
            "parameters": 1,
            "steps": 2,
            "samples": 256,
            "cpu seconds": 300,
            "figures": {"PAIR": figures},
        }
        for name in reversed(list(NETWORKS))
    ]
    [text] = Networks("", tmp_path).parts(files)
    rows = [line.split("|")[1].strip() for line in text.splitlines()[2:]]
    assert rows == list(NETWORKS)
