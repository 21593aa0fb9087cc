"""The prior's objective: the documented loss, the documented captions, one code for every variant."""

import pytest
import torch
from safetensors.torch import save

from corgi.diffusion.schedule import Schedule
from corgi.models.prior import Prior
from corgi.models.text_prior import Sampling, TextPrior
from corgi.settings.models import PriorSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.training.noise import Noise
from corgi.training.prior import EPS, TIMESTEP, PriorObjective, load_prior, table_of
from tests.support.tables import DIM, Output, commit_stage, tiny_run

SETTINGS = PriorSettings(width=32, depth=1, heads=2, num_timesteps=50, coarse_caption_share=0.5)


def _shift() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean = torch.nn.functional.normalize(torch.randn(3, DIM, generator=generator), dim=-1)
    return {
        "mean": mean,
        "scale": torch.full((3, DIM), 0.2),
        "count": torch.tensor([4, 4, 4]),
        "global_mean": mean.mean(0),
        "global_scale": torch.full((DIM,), 0.3),
    }


@pytest.fixture
def run(tmp_path) -> Run:
    run = tiny_run(tmp_path)
    files = {"shift": (".safetensors", save(_shift()))}
    output = Output(RowCounts(rows_in=9, kept=9), files=files, settings={"shift": {"scale": 2.0}})
    commit_stage(run, "shift", {"all": output}, ["embed", "curate"])
    return run


def _objective(run: Run, variant: str = "shifted", **changes) -> PriorObjective:
    inputs = {stage: [shard.path for shard in run.shards(stage)] for stage in ("embed", "curate", "shift")}
    return PriorObjective(
        str(run.store.root.parent),
        inputs,
        variant,
        SETTINGS.model_copy(update=changes).model_dump(mode="json"),
    )


def _batch(objective: PriorObjective) -> dict[str, torch.Tensor]:
    rows = objective.rows()
    units = [rows.load(unit) for unit, count in enumerate(rows.counts) if count]
    return {name: torch.cat([torch.from_numpy(unit[name]) for unit in units]) for name in units[0]}


def test_variants_differ_in_mu_and_sigma_only(run):
    shift = _shift()
    shifted = table_of("shifted", shift, 2.0)
    assert torch.equal(shifted.mean, shift["mean"])
    torch.testing.assert_close(shifted.scale, 2 * shift["scale"])
    assert torch.equal(table_of("standardised", shift, 2.0).scale[0], shift["global_scale"])
    assert torch.equal(table_of("ddpm", shift, 2.0).scale, torch.ones(1, DIM))
    torch.testing.assert_close(table_of("dalle2", shift, 2.0).scale, torch.full((1, DIM), DIM**-0.5))
    torch.testing.assert_close(_objective(run).table.scale, shifted.scale)


@pytest.mark.parametrize("variant", ["shifted", "standardised", "dalle2", "ddpm"])
def test_eq_14_the_loss_is_the_weighted_squared_distance(run, variant):
    objective = _objective(run, variant)
    batch = _batch(objective)
    noise = Noise(3, torch.arange(len(batch["image"])))
    seen = {}

    def model(z_t, t, text, cluster, encodings, drop):
        seen.update(z_t=z_t, t=t, cluster=cluster)
        return torch.zeros_like(z_t)

    loss, _ = objective.loss(model, batch, noise)
    abar = Schedule.linear(50).alpha_bar[seen["t"]].float()
    torch.testing.assert_close(loss, ((1 - abar) * batch["image"].square().sum(-1)).mean(), rtol=1e-5, atol=0)
    mu, scale = objective.table.mean[seen["cluster"]], objective.table.scale[seen["cluster"]]
    eps = noise.normal((DIM,), EPS)
    expected = mu + abar.sqrt()[:, None] * (batch["image"] - mu) + (1 - abar).sqrt()[:, None] * scale * eps
    torch.testing.assert_close(seen["z_t"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(seen["t"], noise.integers(1, 51, TIMESTEP))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_coarse_captions_are_drawn_with_the_recipes_share(run, share):
    objective = _objective(run, coarse_caption_share=share)
    batch = {name: value.repeat(400, *[1] * (value.ndim - 1)) for name, value in _batch(objective).items()}
    drawn = objective.caption(batch, Noise(0, torch.arange(len(batch["image"]))))
    is_coarse = (drawn == batch["coarse"][:, 0]).all(-1)
    assert torch.where(is_coarse, True, (drawn == batch["full"][:, 0]).all(-1)).all()
    assert float(is_coarse.float().mean()) == pytest.approx(share, abs=0.03)


def test_a_picture_without_a_coarse_caption_always_gives_its_full_one(run):
    objective = _objective(run, coarse_caption_share=1.0)
    batch = _batch(objective)
    batch["num_coarse"] = torch.zeros_like(batch["num_coarse"])
    assert torch.equal(
        objective.caption(batch, Noise(0, torch.arange(len(batch["image"])))), batch["full"][:, 0]
    )


def test_law_22_a_prior_comes_back_from_its_commit_with_its_spread(run):
    objective = _objective(run)
    torch.manual_seed(1)
    network = objective.model().eval()
    assert isinstance(network, Prior)
    torch.nn.init.normal_(network.head[-1].weight, std=0.3)  # pyright: ignore[reportArgumentType]
    files = {
        "prior_shifted": (".safetensors", save({k: v.contiguous() for k, v in network.state_dict().items()}))
    }
    output = Output(
        RowCounts(rows_in=1, kept=1), files=files, settings={"prior": SETTINGS.model_dump(mode="json")}
    )
    commit_stage(run, "prior", {"all": output}, ["shift"])
    loaded = load_prior(run.store, run.shards("prior")[0], run.shards("shift")[0], "shifted")
    assert torch.equal(loaded.process.table.scale, objective.table.scale)
    text = _batch(objective)["full"][:1, 0].repeat(64, 1)
    sampled = loaded.sample(text, range(64), Sampling(4))
    assert torch.equal(sampled, TextPrior(network, objective.process).sample(text, range(64), Sampling(4)))
    assert float(sampled.std(0).mean()) > 1e-3


def test_evaluate_gives_finite_cosines_on_val(run):
    objective = _objective(run)
    torch.manual_seed(0)
    figures = objective.evaluate(objective.model())
    assert set(figures) == {
        "similarity_to_image",
        "similarity_to_text",
        "difference_from_baseline",
        "similarity_to_unrelated_text",
    }
    assert all(-2 <= value <= 2 for value in figures.values())
