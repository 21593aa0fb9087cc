"""The decoder's objective: the v error on latents, the embedding dropped and perturbed as the recipe says."""

import json
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from corgi.diffusion.loss import from_x0
from corgi.diffusion.shifted import ShiftTable
from corgi.feeding.feed import dense
from corgi.feeding.noise import Noise
from corgi.feeding.packed_rows import LatentRows
from corgi.models.denoiser import LatentDenoiser
from corgi.models.networks import NETWORKS
from corgi.models.picture_decoder import PictureDecoder, to_bytes
from corgi.models.spatial_autoencoder import PixelCodec, SpatialAutoencoder
from corgi.settings.decoder import DecoderSettings, DiTSettings, UNetSettings, WeakSettings
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.training import TrackingSettings, TrainingSettings
from corgi.tables.manifest import RowCounts
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.training.alone import train_alone
from corgi.training.checkpoint import final_weights
from corgi.training.decoder import DecoderObjective, check_neighbours
from corgi.training.decoder_network import (
    WEAK,
    check_network,
    load_decoder,
    network_of,
    painter_of,
    process_of,
)
from corgi.training.denoising import DROP, TIMESTEP
from corgi.training.objective import SecondAverage
from corgi.training.training import Training
from tests.support.objectives import (
    DECODER,
    SIDE,
    WITH_WORDS,
    add_words,
    decoder_arguments,
    decoder_objective,
    decoder_run,
    every_row,
    linear_autoencoder,
    pixel_run,
)
from tests.support.tables import DIM, Output, commit_stage


@pytest.fixture
def run(tmp_path) -> Run:
    return decoder_run(tmp_path)


def _batch(objective: DecoderObjective, times: int = 1) -> dict[str, torch.Tensor]:
    return {name: value.repeat(times, 1) for name, value in every_row(objective.rows()).items()}


def test_eq_16_an_oracle_of_v_has_no_loss_and_silence_has_the_mean_square_of_v(run):
    objective = decoder_objective(run)
    batch = _batch(objective)
    noise = Noise(0, torch.arange(len(batch["image"])))
    targets = []

    def oracle(z_t, t, embedding, drop):
        targets.append(from_x0(objective.process, batch["latent"], z_t, t, torch.zeros_like(t), "v"))
        return targets[-1]

    assert float(objective.loss(cast(nn.Module, oracle), batch, noise)[0]) == 0
    silent, _ = objective.loss(cast(nn.Module, lambda z_t, *_: torch.zeros_like(z_t)), batch, noise)
    torch.testing.assert_close(silent, targets[0].square().mean())


def _silent(z_t, *_):
    return torch.zeros_like(z_t)


OBJECTIVES = {
    "v": {},
    "x0": {"prediction": "x0"},
    "eps": {"prediction": "eps", "schedule": "linear", "zero_terminal_snr": False},
    "flow": {"prediction": "flow", "schedule": "flow"},
}


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("weight", ["none", "min_snr"])
def test_eq_25_an_oracle_of_any_prediction_has_no_loss_and_paints_its_latent(run, kind, weight):
    """What the objective asks of the network is what the painter takes its answer for."""
    objective = decoder_objective(run, **OBJECTIVES[kind], loss_weight=weight)
    batch = _batch(objective)
    noise = Noise(0, torch.arange(len(batch["image"])))

    class Oracle(torch.nn.Module):
        def forward(self, z_t, t, embedding, drop):
            latent = batch["latent"].repeat(len(z_t) // len(batch["latent"]), 1)  # twice with guidance
            return from_x0(objective.process, latent, z_t, t, torch.zeros_like(t), kind)

    assert float(objective.loss(Oracle(), batch, noise)[0]) < 1e-10
    assert float(objective.loss(cast(nn.Module, _silent), batch, noise)[0]) > 0.05
    painter = painter_of(objective.settings, Oracle(), objective.process, linear_autoencoder())
    painted = painter.sample(batch["image"], range(len(batch["image"])), steps=7, guidance=2.0)
    known = to_bytes(linear_autoencoder().decode(batch["latent"]))
    assert (painted.int() - known.int()).abs().max() <= 1


def test_min_snr_scales_each_row_by_its_own_time(run):
    plain, weighted = (decoder_objective(run, loss_weight=weight) for weight in ("none", "min_snr"))
    batch = {name: value[:1] for name, value in _batch(plain).items()}
    for position in range(8):
        noise = Noise(0, torch.tensor([position]))
        losses = [
            objective.loss(cast(nn.Module, _silent), batch, noise)[0] for objective in (plain, weighted)
        ]
        snr = plain.process.schedule.snr[noise.integers(1, DECODER.num_timesteps + 1, TIMESTEP)]
        torch.testing.assert_close(losses[1], (losses[0] * snr.clamp(max=5) / (snr + 1)).float().squeeze())


def test_a_told_level_is_the_one_that_was_used_and_is_silent_on_val(run):
    objective = decoder_objective(run, conditioning_noise=0.5, noise_level_known=True)
    batch = _batch(objective, times=400)
    noise = Noise(0, torch.arange(len(batch["image"])))
    seen = {}

    def spy(z_t, t, embedding, drop, level=None):
        seen.update(embedding=embedding, level=level)
        return torch.zeros_like(z_t)

    objective.loss(cast(nn.Module, spy), batch, noise)
    level = seen["level"]
    assert 0 <= float(level.min()) < 0.01
    assert 0.24 < float(level.max()) <= 0.25
    row = torch.zeros(len(level), dtype=torch.int64)
    z, noisy = (objective.table.whiten(value, row) for value in (batch["image"], seen["embedding"]))
    left = (noisy - (1 - level)[:, None].sqrt() * z) / level[:, None].sqrt()
    assert float(left.std()) == pytest.approx(1, abs=0.05)
    heard = []

    class Spy(torch.nn.Module):
        def forward(self, z_t, t, embedding, drop, level=None):
            heard.append(level)
            return torch.zeros_like(z_t)

    objective.evaluate(Spy())
    assert heard == [None]


def test_captions_are_dropped_apart_from_embeddings_and_read_whole_on_val(run):
    """Embedding 10 %, caption 50 %, of independent draws; on val neither."""
    add_words(run)
    objective = decoder_objective(run, network="unet", **WITH_WORDS)
    loaded = objective.rows().load(0)
    times = 4000 // len(loaded["image"])
    batch = {
        name: torch.from_numpy(dense(np.concatenate([values] * times))) for name, values in loaded.items()
    }
    noise = Noise(0, torch.arange(len(batch["image"])))
    seen = {}

    def spy(z_t, t, embedding, drop, words, drop_words):
        seen.update(drop=drop, words=words, drop_words=drop_words)
        return torch.zeros_like(z_t)

    objective.loss(cast(nn.Module, spy), batch, noise)
    shares = [seen["drop"], seen["drop_words"], seen["drop"] & seen["drop_words"]]
    assert [float(share.float().mean()) for share in shares] == pytest.approx([0.1, 0.5, 0.05], abs=0.02)
    numbers = [float(states[0][0, 0]) for states in loaded["full_words"]]
    assert seen["words"][:, 0, 0].tolist() == numbers * times
    heard = []

    class Spy(torch.nn.Module):
        def forward(self, z_t, t, embedding, drop, words):
            heard.append(words.shape[1:])
            return torch.zeros_like(z_t)

    objective.evaluate(Spy())
    assert heard == [(4, 6)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_text_tokens": 4}, "network=mlp has none: set network=unet"),
        ({"num_text_tokens": 4, "network": "unet", "pseudo_text_xi": 1.0}, "for a decoder without captions"),
    ],
)
def test_words_that_no_network_reads_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        DecoderSettings.model_validate(values)


@pytest.mark.slow
def test_every_network_is_trained_by_the_loop_committed_and_paints(tmp_path):
    run = pixel_run(tmp_path)
    for network in NETWORKS:
        settings = DECODER.model_copy(update={"network": network})
        steps = TrainingSettings(num_steps=3, global_batch=4, precision="fp32", zero_stage=0, ema_decay=0.5)
        training = Training(
            network,
            str(tmp_path / network),
            DecoderObjective,
            decoder_arguments(run, settings),
            steps,
            TrackingSettings(mode="disabled"),
            "tests",
            seed=0,
        )
        train_alone([training])
        files = {"decoder": (".safetensors", final_weights(training).read_bytes())}
        told = {"decoder": settings.model_dump(mode="json")}
        output = Output(RowCounts(rows_in=1, kept=1), files=files, settings=told)
        commit_stage(run, "decoder", {"all": output}, ["autoencoder"])
        loaded = load_decoder(run.store, run.shards("decoder")[0], run.shards("autoencoder")[0])
        assert loaded.sample(torch.randn(2, DIM), range(2), steps=2).shape == (2, SIDE, SIDE, 3)


@pytest.mark.parametrize("network", ["unet", "dit"])
def test_every_network_is_evaluated_and_shown(run, network):
    objective = decoder_objective(run, network=network)
    torch.manual_seed(0)
    model = objective.model()
    assert objective.evaluate(model) == objective.evaluate(model)
    assert objective.show(model).pictures["samples"].shape[0] == 2 * SIDE


def test_val_is_measured_in_bounded_batches_whose_size_changes_no_figure(run, monkeypatch):
    objective = decoder_objective(run)
    total = len(every_row(objective.rows(Split.VAL))["image"])
    sizes = []

    class Silent(torch.nn.Module):
        def forward(self, z_t, t, embedding, drop):
            sizes.append(len(z_t))
            return torch.zeros_like(z_t)

    figures = []
    for batch in (total, 1):
        monkeypatch.setattr("corgi.training.denoising.VAL_BATCH", batch)
        figures.append(objective.evaluate(Silent())["loss"])
    assert total > 1
    assert sizes == [total] + total * [1]
    assert figures[0] == pytest.approx(figures[1])
    monkeypatch.setattr("corgi.training.denoising.MAX_VAL_PICTURES", 1)
    sizes.clear()
    objective.evaluate(Silent())
    assert sizes == [1]


@pytest.mark.slow
def test_a_decoder_starts_from_the_regression_of_the_train_rows_and_keeps_it(run):
    """Its prediction is nearer to val latents' spread than nothing on the rows it was fitted to, and training leaves it."""
    objective = decoder_objective(run, network="unet", regression=True)
    rows = every_row(objective.rows(Split.TRAIN))
    torch.manual_seed(0)
    model = objective.model()
    fitted = model.get_submodule("regression")
    image, latent = rows["image"], rows["latent"]
    nothing = torch.zeros(len(image), dtype=torch.int64)
    predicted = fitted(objective.table.whiten(image, nothing), nothing.bool())
    assert (predicted - latent).square().sum() < (latent - latent.mean(0)).square().sum()
    assert not [name for name, _ in model.named_parameters() if name.startswith("regression")]
    assert np.isfinite(objective.evaluate(model)["loss"])


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        ("unet", (8, 6, 6), "U-Net of 3 levels cannot divide a latent of shape .8, 6, 6."),
        ("dit", (8, 7, 7), "patches of 2 do not tile"),
        ("dit", (12,), "patches of 2 do not tile"),
    ],
)
def test_a_network_that_does_not_fit_the_latents_is_one_line(network, shape, words):
    settings = DecoderSettings.model_validate(
        {"network": network, "width": 16, "unet": {"widths": [8, 8, 8], "heads": 2}}
    )
    with pytest.raises(SettingsError, match=words) as error:
        check_network(settings, shape)
    assert "\n" not in str(error.value)
    check_network(settings, (8, 8, 8))


@pytest.mark.parametrize(
    "stages", [("pack", "shift", "autoencoder"), ("embed", "curate", "autoencoder")], ids=str
)
def test_a_decoder_with_neighbours_sees_others_latents_in_training_and_painting(run, stages):
    """Every row's neighbours are other train pictures' latents; loaded again, the decoder looks at the same table,
    also one that was trained before there was a training table."""
    objective = decoder_objective(run, neighbours=2)
    rows, table = objective.rows(), objective.neighbours
    assert table is not None
    for unit, count in enumerate(rows.counts):
        if count:
            loaded = rows.load(unit)
            nearest = table.nearest(loaded["image"].astype(np.float32))
            assert np.array_equal(loaded["neighbours"], table.latents(nearest))
            own = LatentRows(objective.packed, objective.latents, Split.TRAIN).uids(unit)
            assert not any(uid in seen for uid, seen in zip(own, table.names(nearest), strict=True))
    torch.manual_seed(0)
    model = objective.model()
    assert objective.show(model).pictures["samples"].shape[0] == 2 * SIDE
    assert objective.evaluate(model)["loss"] > 0
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    settings = {"decoder": objective.settings.model_dump(mode="json")}
    output = Output(
        RowCounts(rows_in=1, kept=1), files={"decoder": (".safetensors", save(state))}, settings=settings
    )
    commit_stage(run, "decoder", {"all": output})
    inputs = {stage: tuple(shard.path for shard in run.shards(stage)) for stage in stages}
    committed = run.shards("decoder")[0].model_copy(update={"inputs": inputs})
    loaded = load_decoder(run.store, committed, run.shards("autoencoder")[0])
    asked = torch.randn(3, DIM)
    painter = painter_of(
        objective.settings, model, objective.process, linear_autoencoder(), objective.neighbours
    )
    assert torch.equal(loaded.sample(asked, range(3)), painter.sample(asked, range(3)))
    assert loaded.neighbours_of(asked) == painter.neighbours_of(asked)
    assert {len(uids) for uids in loaded.neighbours_of(asked)} == {2}


def test_more_neighbours_than_other_train_pictures_are_one_line():
    check_neighbours(DecoderSettings(neighbours=3), 4)
    with pytest.raises(SettingsError, match=r"decoder\.neighbours=4 needs more than 4 train pictures"):
        check_neighbours(DecoderSettings(neighbours=4), 4)


def test_the_embedding_is_dropped_with_the_recipes_probability_and_perturbed_by_its_share(run):
    objective = decoder_objective(run, embedding_drop_prob=0.25, conditioning_noise=0.5)
    batch = _batch(objective, times=400)
    noise = Noise(0, torch.arange(len(batch["image"])))
    seen = {}

    def spy(z_t, t, embedding, drop):
        seen.update(embedding=embedding, drop=drop)
        return torch.zeros_like(z_t)

    objective.loss(cast(nn.Module, spy), batch, noise)
    assert torch.equal(seen["drop"], noise.uniform(DROP) < 0.25)
    assert float(seen["drop"].float().mean()) == pytest.approx(0.25, abs=0.03)
    mu, scale = objective.table.mean, objective.table.scale
    left = (seen["embedding"] - mu) / scale - 0.75**0.5 * (batch["image"] - mu) / scale
    assert float(left.std()) == pytest.approx(0.5, abs=0.02)


def test_evaluate_repeats_itself_and_perturbs_nothing(run):
    objective = decoder_objective(run, conditioning_noise=0.9, embedding_drop_prob=0.9)
    torch.manual_seed(0)
    model = objective.model()
    torch.nn.init.normal_(model.output.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    assert objective.evaluate(model) == objective.evaluate(model) == decoder_objective(run).evaluate(model)


def test_val_pictures_are_shown_above_what_is_painted_for_them(run):
    """The grid repeats itself, holds the val latents decoded, and is what the committed decoder would paint."""
    objective = decoder_objective(run)
    torch.manual_seed(0)
    model = objective.model()
    torch.nn.init.normal_(model.output.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    grid = objective.show(model).pictures["samples"]
    assert (grid == objective.show(model).pictures["samples"]).all()
    val = every_row(objective.rows(Split.VAL))
    count = len(val["image"])
    assert grid.shape == (2 * SIDE, count * SIDE, 3)
    known = to_bytes(linear_autoencoder().decode(val["latent"]))
    painter = PictureDecoder(model, objective.process, linear_autoencoder())  # pyright: ignore[reportArgumentType]
    painted = painter.sample(val["image"], range(count), DECODER.sample_steps, DECODER.guidance)
    for place in range(count):
        column = grid[:, place * SIDE : (place + 1) * SIDE]
        assert (column[:SIDE] == known[place].numpy()).all()
        assert (column[SIDE:] == painted[place].numpy()).all()


def test_a_decoder_comes_back_from_its_commit_and_paints_the_same(run):
    objective = decoder_objective(run)
    torch.manual_seed(1)
    model = objective.model()
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    settings = {"decoder": DECODER.model_dump(mode="json")}
    output = Output(
        RowCounts(rows_in=1, kept=1), files={"decoder": (".safetensors", save(state))}, settings=settings
    )
    commit_stage(run, "decoder", {"all": output}, ["autoencoder"])
    loaded = load_decoder(run.store, run.shards("decoder")[0], run.shards("autoencoder")[0])
    assert isinstance(loaded.network, LatentDenoiser)
    torch.testing.assert_close(loaded.network.embedding_table.mean, objective.table.mean)
    painted = loaded.sample(torch.randn(2, DIM), [0, 1], steps=3)
    assert painted.shape == (2, SIDE, SIDE, 3)
    assert torch.equal(loaded.network.output.weight, state["output.weight"])


def test_a_decoder_that_is_guided_by_a_weak_network_comes_back_with_it(run):
    """The weak network is an average of half of the steps; without it the decoder paints otherwise."""
    objective = decoder_objective(run, weak=WeakSettings(ema_decay=0.9))
    assert objective.second_average() == SecondAverage(0.9, objective.settings.training.num_steps // 2)
    assert decoder_objective(run).second_average() is None
    torch.manual_seed(1)
    networks = [objective.model(), objective.model()]
    for network in networks:
        torch.nn.init.normal_(network.output.weight)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    states = [
        {name: value.contiguous() for name, value in network.state_dict().items()} for network in networks
    ]
    files = {
        name: (".safetensors", save(state)) for name, state in zip(("decoder", WEAK), states, strict=True)
    }
    settings = {"decoder": objective.settings.model_dump(mode="json")}
    output = Output(RowCounts(rows_in=1, kept=1), files=files, settings=settings)
    commit_stage(run, "decoder", {"all": output}, ["autoencoder"])
    loaded = load_decoder(run.store, run.shards("decoder")[0], run.shards("autoencoder")[0])
    expected = PictureDecoder(networks[0], objective.process, linear_autoencoder(), weak=networks[1])
    asked = torch.randn(2, DIM)
    painted = loaded.sample(asked, [0, 1], 5, 2.0)
    assert torch.equal(painted, expected.sample(asked, [0, 1], 5, 2.0))
    assert not torch.equal(painted, replace(expected, weak=None).sample(asked, [0, 1], 5, 2.0))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_comes_back_from_its_commit_on_spatial_latents_and_paints_the_same(run, network):
    """On pixels of 4 x 4; the table that standardises the embedding is in the weights."""
    space = SpatialAutoencoder(PixelCodec(), SIDE)
    config = json.dumps({"image_size": SIDE, "codec": {}}).encode()
    files = {"autoencoder": (".safetensors", save(space.state_dict())), "config": (".json", config)}
    kind = {"autoencoder": {"kind": "pixels"}}
    model = Output(RowCounts(rows_in=1, kept=1), files=files, settings=kind)
    commit_stage(run, "autoencoder", {"model": model}, ["download"])
    settings = DECODER.model_copy(
        update={
            "network": network,
            "unet": UNetSettings(widths=(16, 32), heads=2),
            "dit": DiTSettings(heads=2, patch=2),
        }
    )
    torch.manual_seed(0)
    trained = network_of(
        settings, space.latent_shape, ShiftTable.standardised(torch.randn(DIM), torch.rand(DIM) + 0.5)
    )
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {name: value.contiguous() for name, value in trained.state_dict().items()}
    recorded = {"decoder": settings.model_dump(mode="json")}
    output = Output(
        RowCounts(rows_in=1, kept=1), files={"decoder": (".safetensors", save(state))}, settings=recorded
    )
    commit_stage(run, "decoder", {"all": output}, ["autoencoder"])
    loaded = load_decoder(run.store, run.shards("decoder")[0], run.shards("autoencoder")[0])
    painter = painter_of(settings, trained, process_of(settings, space.latent_shape), space)
    embedding = torch.randn(3, DIM)
    painted = loaded.sample(embedding, [0, 1, 2], steps=3, guidance=2.0)
    assert painted.shape == (3, SIDE, SIDE, 3)
    assert torch.equal(painted, painter.sample(embedding, [0, 1, 2], steps=3, guidance=2.0))


def test_latents_and_decoders_of_another_autoencoder_are_refused_by_digest(run: Run) -> None:
    """What 0.1 committed names no autoencoder, and is taken as it always was."""
    model, *latents = run.shards("autoencoder")
    other = {"autoencoder": "0" * 32}
    outputs = {
        "model": Output(
            model.rows,
            files={"autoencoder": (".safetensors", run.store.path(model, "autoencoder").read_bytes())},
            settings=model.settings,
        )
    }
    for shard in latents:
        outputs[shard.shard] = Output(shard.rows, {"latents": run.store.read(shard, "latents")}, facts=other)
    commit_stage(run, "autoencoder", outputs, ["download"])
    with pytest.raises(InputError, match="latents of autoencoder 000000000000"):
        decoder_objective(run)
    trained = Output(RowCounts(rows_in=1, kept=1), facts=other)
    commit_stage(run, "decoder", {"all": trained}, ["autoencoder"])
    with pytest.raises(InputError, match="decoder shard all"):
        load_decoder(run.store, run.shards("decoder")[0], model)
