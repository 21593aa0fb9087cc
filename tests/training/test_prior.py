"""The prior's objective: the documented loss, the documented captions, one code for every variant."""

import subprocess
import sys
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from corgi.baselines import VARIANTS
from corgi.diffusion.schedule import Schedule
from corgi.feeding.feed import Feed
from corgi.feeding.noise import Noise
from corgi.feeding.order import Order
from corgi.flow.context import Context
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior
from corgi.models.text_prior import TextPrior
from corgi.settings.errors import SettingsError
from corgi.settings.models import PriorSettings
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.vectors import concatenated
from corgi.training.prior import load_prior
from corgi.training.prior_loss import EPS, TIMESTEP
from corgi.training.shift_table import table_of
from corgi.training.stages import Prior as PriorStage
from corgi.training.words import check_words
from tests.support.objectives import (
    PRIOR,
    WITH_WORDS,
    WORD_WIDTH,
    add_words,
    every_row,
    prior_objective,
    prior_run,
    shift_parameters,
    word_state,
)
from tests.support.tables import DIM, Output, commit_stage

RECIPE = Recipe.model_validate({"name": "tiny"})


@pytest.fixture
def run(tmp_path) -> Run:
    return prior_run(tmp_path)


def test_words_follow_their_captions_through_order_batches_and_padding(run: Run) -> None:
    add_words(run)
    objective = prior_objective(run, **WITH_WORDS)
    rows = objective.rows()
    feed = Feed(rows, Order(rows.counts, 0, 1, 16), 7, (0, 1))
    seen = 0
    for step in range(6):
        batch = feed.batch(step)
        noise = Noise(0, batch.positions)
        words, text = objective.words(batch.columns, noise), objective.caption(batch.columns, noise)
        assert words is not None
        assert words.shape == (7, 4, WORD_WIDTH)
        for row in range(7):
            [chosen] = {
                (uid, ordinal)
                for (uid, ordinal), vector in _captions(run).items()
                if np.allclose(vector, text[row], atol=1e-3)
            }
            expected = word_state(*chosen)[:4]
            assert torch.equal(words[row, : len(expected)], torch.from_numpy(expected).float())
            assert not words[row, len(expected) :].any()
            seen += 1
    assert seen == 42


def _captions(run: Run) -> dict[tuple[str, int], np.ndarray]:
    found = {}
    for shard in run.shards("embed"):
        table = run.store.read(shard, "caption_embeddings")
        vectors = concatenated(table, "text", ["own"])
        for row, vector in zip(table.select(["uid", "ordinal"]).to_pylist(), vectors, strict=True):
            found[row["uid"], row["ordinal"]] = vector
    return found


def test_a_prior_with_words_trains_evaluates_and_reads_them(run: Run) -> None:
    add_words(run)
    objective = prior_objective(run, **WITH_WORDS)
    model = objective.model()
    batch = Feed(objective.rows(), Order(objective.rows().counts, 0, 1, 16), 8, (0, 1)).batch(0)
    loss, _ = objective.loss(model, batch.columns, Noise(0, batch.positions))
    loss.backward()
    assert model.encodings is not None
    figures = objective.evaluate(model)
    assert all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize(
    ("has", "change"),
    [(False, {}), (True, {"encoding_dim": WORD_WIDTH + 1}), (True, {"text_encoder": "other"})],
)
def test_words_that_were_not_encoded_are_refused_before_anything_is_trained(run: Run, has, change) -> None:
    if has:
        add_words(run)
    settings = PRIOR.model_copy(update={**WITH_WORDS, **change})
    stage = PriorStage(reads_words=True)
    inputs = {name: run.stages()[name] for name in stage.inputs}
    context = Context(stage, RECIPE, run.store, run, inputs, "key")
    with pytest.raises(SettingsError, match=r"num_text_tokens=4.*set prior\.num_text_tokens=0"):
        check_words(context, settings)


def test_a_recipe_whose_words_nobody_encodes_is_refused() -> None:
    towers = [{"name": "a", "model": "RN50", "pretrained": "random"}]
    two = [{"name": name, "model": "tower:a"} for name in ("x", "y")]
    for tokens, encoder in ((two, None), (two, "z")):
        recipe = {
            "name": "words",
            "embed": {"towers": towers, "tokens": tokens},
            "prior": {"num_text_tokens": 4, "text_encoder": encoder},
        }
        with pytest.raises(ValueError, match=r"prior.text_encoder must name one of embed.tokens"):
            Recipe.model_validate(recipe)


def test_variants_differ_in_mu_and_sigma_only(run):
    shift = shift_parameters()
    shifted = table_of("shifted", shift, 2.0)
    assert torch.equal(shifted.mean, shift["mean"])
    torch.testing.assert_close(shifted.scale, 2 * shift["scale"])
    assert torch.equal(table_of("standardised", shift, 2.0).scale[0], shift["global_scale"])
    assert torch.equal(table_of("ddpm", shift, 2.0).scale, torch.ones(1, DIM))
    torch.testing.assert_close(table_of("dalle2", shift, 2.0).scale, torch.full((1, DIM), DIM**-0.5))
    torch.testing.assert_close(prior_objective(run).table.scale, shifted.scale)


@pytest.mark.parametrize("variant", VARIANTS)
def test_eq_14_the_loss_is_the_weighted_squared_distance(run, variant):
    objective = prior_objective(run, variant)
    batch = every_row(objective.rows())
    noise = Noise(3, torch.arange(len(batch["image"])))
    seen = {}

    def model(z_t, t, text, cluster, encodings, drop):
        seen.update(z_t=z_t, t=t, cluster=cluster)
        return torch.zeros_like(z_t)

    loss, _ = objective.loss(cast(nn.Module, model), batch, noise)
    abar = Schedule.linear(50).alpha_bar[seen["t"]].float()
    torch.testing.assert_close(loss, ((1 - abar) * batch["image"].square().sum(-1)).mean(), rtol=1e-5, atol=0)
    mu, scale = objective.table.mean[seen["cluster"]], objective.table.scale[seen["cluster"]]
    eps = noise.normal((DIM,), EPS)
    expected = mu + abar.sqrt()[:, None] * (batch["image"] - mu) + (1 - abar).sqrt()[:, None] * scale * eps
    torch.testing.assert_close(seen["z_t"], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(seen["t"], noise.integers(1, 51, TIMESTEP))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_coarse_captions_are_drawn_with_the_recipes_share(run, share):
    objective = prior_objective(run, coarse_caption_share=share)
    batch = {
        name: value.repeat(400, *[1] * (value.ndim - 1))
        for name, value in every_row(objective.rows()).items()
    }
    drawn = objective.caption(batch, Noise(0, torch.arange(len(batch["image"]))))
    is_coarse = (drawn == batch["coarse"][:, 0]).all(-1)
    assert torch.where(is_coarse, True, (drawn == batch["full"][:, 0]).all(-1)).all()
    assert float(is_coarse.float().mean()) == pytest.approx(share, abs=0.03)


def test_a_picture_without_a_coarse_caption_always_gives_its_full_one(run):
    objective = prior_objective(run, coarse_caption_share=1.0)
    batch = every_row(objective.rows())
    batch["num_coarse"] = torch.zeros_like(batch["num_coarse"])
    assert torch.equal(
        objective.caption(batch, Noise(0, torch.arange(len(batch["image"])))), batch["full"][:, 0]
    )


def test_law_22_a_prior_comes_back_from_its_commit_with_its_spread(run):
    objective = prior_objective(run)
    torch.manual_seed(1)
    network = objective.model().eval()
    assert isinstance(network, Prior)
    torch.nn.init.normal_(network.head[-1].weight, std=0.3)  # pyright: ignore[reportArgumentType]
    files = {
        "prior_shifted": (".safetensors", save({k: v.contiguous() for k, v in network.state_dict().items()}))
    }
    output = Output(
        RowCounts(rows_in=1, kept=1), files=files, settings={"prior": PRIOR.model_dump(mode="json")}
    )
    commit_stage(run, "prior", {"all": output}, ["shift"])
    loaded = load_prior(run.store, run.shards("prior")[0], run.shards("shift")[0], "shifted")
    assert torch.equal(loaded.process.table.scale, objective.table.scale)
    text = every_row(objective.rows())["full"][:1, 0].repeat(64, 1)
    sampled = loaded.sample(text, range(64), Sampling(4))
    assert torch.equal(sampled, TextPrior(network, objective.process).sample(text, range(64), Sampling(4)))
    assert float(sampled.std(0).mean()) > 1e-3


def test_evaluate_gives_the_cosines_of_dalle2_pytorch_under_its_names(run):
    """Against numpy on what the prior samples; the rows of val are its own."""
    objective = prior_objective(run)
    torch.manual_seed(0)
    model = objective.model()
    assert isinstance(model, Prior)
    torch.nn.init.normal_(model.head[-1].weight, std=0.3)  # pyright: ignore[reportArgumentType]
    figures = objective.evaluate(model)
    val = every_row(objective.split(Split.VAL))
    image, text = val["image"].numpy(), val["full"][:, 0].numpy()
    prior = TextPrior(model, objective.process)
    sampled = prior.sample(torch.from_numpy(text), range(len(text)), Sampling(8)).numpy()
    own, true = (sampled * text).sum(1), (image * text).sum(1)
    expected = {
        "baseline similarity": true.mean(),
        "similarity with text": own.mean(),
        "similarity with original image": (sampled * image).sum(1).mean(),
        "similarity with unrelated caption": (sampled * np.roll(text, 1, 0)).sum(1).mean(),
        "difference from baseline similarity": (own - true).mean(),
    }
    for name, value in expected.items():
        assert figures.pop(f"{name} [steps=8]") == pytest.approx(float(value), abs=1e-5)
    assert list(figures) == ["text picks the picture's cluster [steps=8]"]


@pytest.mark.parametrize("changes", [{}, {"prediction": "v"}, {"causal": False}], ids=str)
def test_four_noise_levels_a_caption_are_the_mean_of_four_losses(run, changes):
    """K = 4: the loss is that of the same caption with each of its levels as a batch of its own."""
    objective = prior_objective(run, noise_levels_per_caption=4, text_drop_prob=0.5, **changes)
    batch = every_row(objective.rows())
    torch.manual_seed(1)
    model = objective.model()
    assert isinstance(model, Prior)
    torch.nn.init.normal_(model.head[-1].weight, std=0.3)  # pyright: ignore[reportArgumentType]
    seen = []

    def separate(z_t, t, text, cluster, encodings, drop):
        seen.append((z_t, t))
        return torch.stack([model(z_t[:, j], t[:, j], text, cluster, encodings, drop) for j in range(4)], 1)

    noise = Noise(3, torch.arange(len(batch["image"])))
    together, _ = objective.loss(model, batch, noise)
    apart, _ = objective.loss(cast(nn.Module, separate), batch, noise)
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)
    z_t, t = seen[0]
    assert z_t.shape == (len(batch["image"]), 4, DIM)
    assert all(len(set(row.tolist())) == 4 for row in t)
    assert torch.equal(t[:, 0], noise.integers(1, 51, TIMESTEP))


def test_each_of_a_captions_noise_levels_is_uniform_over_all_timesteps(run):
    """Every timestep of 1..T is as likely at every level, and the levels are a quarter of the way apart."""
    objective = prior_objective(run, noise_levels_per_caption=4)
    t = objective._timesteps(Noise(0, torch.arange(20_000)))
    for level in range(4):
        counts = torch.bincount(t[:, level], minlength=51)[1:]
        assert counts.sum() == 20_000
        assert float((counts / 400 - 1).abs().max()) < 0.2
    apart = (t[:, 1:] - t[:, :-1]) % 50
    assert set(apart.flatten().tolist()) <= {12, 13}


@pytest.mark.parametrize("rule", ["learned", "learned_soft"])
def test_eq_23_the_head_learns_the_pictures_own_cluster(run, rule):
    """Its cross entropy is added, the chain uses the picture's cluster, and the trunk gets no gradient of it."""
    changes = {"cluster_choice": rule, "training": PRIOR.training.model_copy(update={"zero_stage": 0})}
    objective = prior_objective(run, **changes)
    batch = every_row(objective.rows())
    torch.manual_seed(1)
    model = objective.model()
    assert isinstance(model, Prior)
    noise = Noise(3, torch.arange(len(batch["image"])))
    loss, metrics = objective.loss(model, batch, noise)
    model.choice, head = None, model.choice
    plain, _ = objective.loss(model, batch, noise)
    own = (batch["image"] @ torch.nn.functional.normalize(objective.table.mean, dim=-1).mT).argmax(-1)
    text = objective.caption(batch, noise)
    assert head is not None
    torch.testing.assert_close(loss - plain, torch.nn.functional.cross_entropy(head(text), own))
    assert 0 <= float(metrics["choice_accuracy"]) <= 1


def test_eq_19_and_20_the_learned_shift_has_its_two_losses_and_no_other_gradient(run):
    """The x0 loss alone gives (mu, Sigma) no gradient: it would shrink the noise."""
    changes = {"learned_shift": True, "training": PRIOR.training.model_copy(update={"zero_stage": 0})}
    objective = prior_objective(run, **changes)
    batch = every_row(objective.rows())
    torch.manual_seed(1)
    model = objective.model()
    assert isinstance(model, Prior)
    assert model.shift is not None
    noise = Noise(3, torch.arange(len(batch["image"])))
    loss, metrics = objective.loss(model, batch, noise)
    shift, model.shift = model.shift, None
    plain, _ = objective.loss(model, batch, noise)
    plain.backward()
    assert shift.stored_mean.grad is None
    torch.testing.assert_close(loss - plain, metrics["shift_similarity"] + metrics["shift_diversity"])
    loss.backward()
    for weights in (shift.stored_mean, shift.stored_log_scale):
        assert weights.grad is not None
        assert float(weights.grad.abs().sum()) > 0


def test_the_cosines_shown_are_those_whose_mean_is_reported(run):
    objective = prior_objective(run)
    torch.manual_seed(1)
    model = objective.model()
    [cosines] = objective.show(model).histograms.values()
    assert (cosines == next(iter(objective.show(model).histograms.values()))).all()
    told = objective.evaluate(model)["similarity with original image [steps=8]"]
    assert len(cosines) == sum(objective.split(Split.VAL).counts)
    assert float(cosines.mean()) == pytest.approx(told, abs=1e-6)


def test_settings_that_cannot_work_are_refused():
    """Half head dimensions, eps without signal, learned parts under ZeRO."""
    for changes, words in (
        ({"rotary": True, "width": 34, "heads": 34}, "even head dimension"),
        ({"prediction": "eps", "schedule": "cosine_zero_snr"}, "undefined"),
        ({"learned_shift": True}, "zero_stage=0"),
        ({"cluster_choice": "learned"}, "zero_stage=0"),
    ):
        with pytest.raises(ValueError, match=words):
            PriorSettings.model_validate(changes)


def test_low_rank_factors_of_the_shift_reach_the_table():
    """Sigma = c^2 (diag scale^2 + F F^T)."""
    factor = torch.randn(3, DIM, 2)
    table = table_of("shifted", {**shift_parameters(), "factor": factor}, 2.0)
    root = table.apply_L(torch.eye(DIM), torch.zeros(DIM, dtype=torch.int64)).mT
    expected = 4 * (torch.diag(shift_parameters()["scale"][0] ** 2) + factor[0] @ factor[0].mT)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-4, atol=1e-4)


def test_its_workers_do_not_import_the_samplers_library():
    code = "import sys, corgi.training.prior; print([m for m in ('diffusers', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
