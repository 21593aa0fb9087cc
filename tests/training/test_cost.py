"""What a plan says a training costs: against counted FLOPs, counted weights and the published arithmetic."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from corgi.diffusion.shifted import ShiftTable
from corgi.models.prior import Prior, PriorConfig
from corgi.settings.recipe import load
from corgi.settings.tower_width import towers_width
from corgi.training.cost import TrainingCost, lines, prior_cost, prior_flops
from corgi.training.prior_loss import network_of

KARLO = TrainingCost(1_022_000_000, 164e9)
"""A prior of 20 layers and width 2048 over 81 tokens, counted elsewhere: 1,022 M parameters, 164 GFLOP forward."""


def counted(config: PriorConfig, levels: int, batch: int = 2) -> float:
    """FLOPs a sample of a forward pass as torch counts them, on the meta device."""
    with torch.device("meta"):
        prior = Prior(config)
        inputs: dict[str, Any] = {
            "z_t": torch.empty(batch, levels, config.dim),
            "t": torch.empty(batch, levels, dtype=torch.int64),
            "text": torch.empty(batch, config.text_dim),
            "cluster": torch.empty(batch, dtype=torch.int64),
        }
        if config.num_text_tokens:
            inputs["encodings"] = torch.empty(batch, config.num_text_tokens, config.encoding_dim)
        with FlopCounterMode(display=False) as counter:
            prior(**inputs)
    return counter.get_total_flops() / batch / levels


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("tiny", {}), ("base", {"num_text_tokens": 77}), ("base", {"causal": False}), ("1.1B", {})],
)
def test_flops_are_those_torch_counts(name: str, changes: dict[str, Any], levels: int) -> None:
    """Within 1 % for every shape, one noise level a caption or four."""
    config = PriorConfig.preset(name, **{"standardise": False, **changes})
    assert prior_flops(config, levels) == pytest.approx(counted(config, levels), rel=0.01)


def test_the_released_sizes_cost_what_was_worked_out_for_them() -> None:
    """1.12 B: 184 GF forward, 550 GF training, 227 samples/s on an A100 and 719 on an H100; 1.39 B: 229, 688, 181, 575."""
    for name, forward, training, a100, h100 in (
        ("1.1B", 184e9, 550e9, 227, 719),
        ("1.4B", 229e9, 688e9, 181, 575),
    ):
        cost = prior_cost(PriorConfig.preset(name))
        assert cost.forward_flops == pytest.approx(forward, rel=0.1)
        assert cost.training_flops == pytest.approx(training, rel=0.1)
        assert cost.samples_per_s("A100") == pytest.approx(a100, rel=0.1)
        assert cost.samples_per_s("H100") == pytest.approx(h100, rel=0.1)


def test_state_memory_and_hours_are_the_published_arithmetic() -> None:
    """1.02 B: 16.4 GB at ZeRO 0; 5.6 / 3.8 / 2.0 on 8; 4.3 / 2.3 / 0.3 on 64; 2.46 B samples take about 2,700 A100-hours."""
    expected = {8: (16.4, 5.6, 3.8, 2.0), 64: (16.4, 4.3, 2.3, 0.26)}
    for count, sizes in expected.items():
        for stage, gigabytes in enumerate(sizes):
            assert KARLO.state_bytes(stage, count) / 1e9 == pytest.approx(gigabytes, rel=0.03)
    assert KARLO.samples_per_s("A100") == pytest.approx(253, rel=0.02)
    assert KARLO.samples_per_s("H100") == pytest.approx(802, rel=0.02)
    assert KARLO.hours(2_460_000_000, "A100", 1) == pytest.approx(2700, rel=0.01)
    assert KARLO.hours(2_460_000_000, "A100", 64) == pytest.approx(2700 / 64, rel=0.01)


def test_noise_levels_share_a_caption_and_recomputing_costs_a_forward_pass() -> None:
    """Four levels cost a third of four sequences at 85 tokens; checkpointing adds a third to training."""
    config = PriorConfig.preset("1.1B")
    assert prior_flops(config, 4) < prior_flops(config) / 3
    recomputed = prior_cost(PriorConfig.preset("1.1B", activation_checkpointing=True))
    assert recomputed.training_flops == pytest.approx(prior_cost(config).training_flops * 4 / 3)


def test_the_plan_of_the_papers_recipe_prints_its_cost() -> None:
    """1536 dimensions out of open_clip's own configs, parameters, FLOPs, memory and hours by number of GPUs."""
    recipe = load("pipelines/recipes/corgi.yaml", ["plan.input=list.parquet"])
    assert towers_width(recipe) == 1536
    said = lines(recipe)
    assert said[0].startswith(
        "1.12 B parameters, 175 GFLOP forward and 524 GFLOP training per sample, 2.46 B"
    )
    for count, line in zip((8, 64, 512), said[1:4], strict=True):
        assert line.strip().startswith(f"{count} GPUs: state 17.88 / ")
        assert "A100" in line
        assert "H100" in line
    assert lines(load("pipelines/recipes/openmoji.yaml", [])) == []


def test_an_unknown_tower_is_said_to_be_unknown() -> None:
    """No guess at a dimension."""
    recipe = load("pipelines/recipes/corgi.yaml", ["embed.towers=[{name: a, model: no-such, pretrained: x}]"])
    assert lines(recipe)[0].startswith("cost unknown")


@pytest.mark.law
@pytest.mark.parametrize(
    "prior",
    [
        {},
        {"rotary": True},
        {"cluster_choice": "learned", "cluster_token": False},
        {"cluster_choice": "learned_soft", "learned_shift": True},
        {"variants": ["dalle2", "shifted"], "cluster_choice": "learned"},
    ],
)
def test_the_plan_counts_the_weights_of_the_network_that_is_trained(prior: dict[str, Any]) -> None:
    """Of the largest variant: heads of a learned choice and a learned (mu, Sigma) are weights too."""
    recipe = load("pipelines/recipes/corgi.yaml", ["plan.input=list.parquet", "shift.num_clusters=4096"])
    settings = recipe.prior.model_copy(update={"depth": 1, "num_text_tokens": 0, **prior})
    recipe = recipe.model_copy(update={"prior": settings})
    with torch.device("meta"):
        tables = {
            "shifted": ShiftTable(torch.zeros(4096, 1536), torch.ones(4096, 1536)),
            "dalle2": ShiftTable.ddpm(1536),
        }
        networks = [network_of(settings, tables[variant], variant) for variant in settings.variants]
    counted = max(sum(p.numel() for p in network.parameters()) for network in networks)
    assert f"state {16 * counted / 1e9:.2f} / " in lines(recipe)[1]


def test_an_own_tower_has_the_width_it_is_trained_with(tmp_path) -> None:
    own = "embed.towers=[{name: own, model: own, pretrained: trained}]"
    recipe = load("pipelines/recipes/corgi.yaml", ["plan.input=list.parquet", own, "tower.embed_dim=48"])
    assert "cost unknown" not in lines(recipe)[0]
