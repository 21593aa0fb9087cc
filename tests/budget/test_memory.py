"""A GPU too small for the training's state is refused by --plan, with the mildest setting that fits."""

import pytest

from corgi.budget.memory import check_memory, needed_bytes
from corgi.budget.plan import lines
from corgi.budget.rates import load
from corgi.flow.node_types import NodeType, NodeTypes
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import Recipe
from corgi.settings.recipe import load as load_recipe
from corgi.settings.training import TrainingSettings
from corgi.training.cost import GPU_BYTES, TrainingCost
from tests.cluster.versions import CLUSTER, REPOSITORY

RATES = load()
PRIOR = TrainingCost(1_000_000_000, 1e9)


def recipe(*overrides: str) -> Recipe:
    """Return the recipe of the prior of 1.1 B weights, on GPUs of 24 GB."""
    given = ["plan.input=list.parquet", f"cluster.file={CLUSTER / 'aws.yaml'}", *overrides]
    return load_recipe(REPOSITORY / "pipelines/recipes/corgi.yaml", given)


def test_plan_refuses_a_state_that_no_gpu_holds_and_names_the_setting() -> None:
    alone = ["prior.training.num_workers=1", "prior.training.zero_stage=0"]
    assert list(lines(recipe(*alone), ["prior"], 1000))
    wide = recipe(*alone, "prior.width=3072")
    with pytest.raises(
        ClusterError,
        match=r"GB per GPU at ZeRO stage 0 with 1 workers, but its largest GPU \(L4\) has 24 GB; .*set prior",
    ) as found:
        list(lines(wide, ["prior"], 1000))
    assert "\n" not in str(found.value)
    assert list(lines(wide, ["download"], 1000)), "what is finished is not refused"
    assert list(lines(recipe("prior.width=3072", "prior.training.zero_stage=3"), ["prior"], 1000))


TOO_LARGE = {
    "decoder": ["decoder.width=1536"],
    "upsampler": [
        "upsampler.low_side=256",
        "upsampler.side=512",
        "upsampler.unet.widths=[2048,2048,2048]",
    ],
    "autoencoder": ["autoencoder.conv.widths=[2048,2048,2048]", "autoencoder.conv.blocks=3"],
    "tower": ["tower.embed_dim=4096"],
}


@pytest.mark.parametrize("stage", TOO_LARGE)
def test_every_training_is_compared(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {"num_workers": 1, "zero_stage": 0, "use_gpu": True}
    settings = [f"{stage}.training.{name}={str(value).lower()}" for name, value in alone.items()]
    settings += ["embed.towers=[]", "embed.tokens=[]", "prior.num_text_tokens=0"] if stage == "tower" else []
    if stage == "tower":  # whose heads fit every GPU that is sold
        monkeypatch.setitem(GPU_BYTES, "L4", 5e8)
    wide = recipe(*settings, *TOO_LARGE[stage])
    with pytest.raises(
        ClusterError, match=rf"^{stage} cannot be trained on .* set {stage}\.training"
    ) as found:
        list(lines(wide, [stage], 1000))
    assert "\n" not in str(found.value)
    assert list(lines(wide, ["download"], 1000)), "what is finished is not refused"
    few = recipe(*settings, *TOO_LARGE[stage], f"{stage}.training.use_gpu=false")
    assert list(lines(few, ["download", stage], 1000)), "CPUs are not compared"


def test_gpus_that_are_not_known_hold_anything() -> None:
    big = recipe("prior.width=8192", "prior.training.num_workers=1")
    both = NodeTypes("f", [NodeType("g6.12xlarge", 48, 4, 1), NodeType("nobody-knows", 48, 4, 1)], 2)
    check_memory(big, ["prior"], both, RATES)
    check_memory(big, ["prior"], NodeTypes("f", [NodeType("cpus", 48, 0, 1)], 1), RATES)
    with pytest.raises(ClusterError, match="use larger GPUs"):
        check_memory(big, ["prior"], NodeTypes("f", both.types[:1], 1), RATES)


@pytest.mark.law
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloading_and_more_workers_never_need_more(stage: int) -> None:
    def needed(**settings: object) -> float:
        return needed_bytes(PRIOR, TrainingSettings.model_validate({"zero_stage": stage, **settings}))

    for count in (1, 8, 64):
        assert needed(num_workers=count, offload=True) < needed(num_workers=count)
        assert needed(num_workers=2 * count) <= needed(num_workers=count)
