"""The loss of an autoencoder, its figures on val, and what tells a collapsed codebook."""

import itertools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from corgi.feeding.feed import first_rows
from corgi.feeding.noise import Noise
from corgi.latents.objective import (
    AutoencoderObjective,
    check_code_use,
    code_use,
    codec_of,
    conv_config,
    psnr,
    unit_range,
)
from corgi.models.adversary import (
    AdversarialCodec,
    Verdicts,
    codec_state,
    discriminator_loss,
    generator_loss,
)
from corgi.models.codebook import LearnedCodebook, k_means, vectors_of
from corgi.models.conv_codec import ConvCodec
from corgi.models.perceptual import feature_distance
from corgi.settings.errors import InputError
from corgi.settings.models import AutoencoderSettings
from corgi.statistics.frechet import frechet_distance
from corgi.tables.run import Run
from corgi.tables.schema import Split
from tests.support.shared_ranks import on_each_rank
from tests.support.tables import tiny_run
from tests.support.tiny_towers import tiny_tower

pytestmark = pytest.mark.slow

SIDE = 16
SETTINGS: dict[str, Any] = {
    "image_size": SIDE,
    "conv": {"widths": [8, 8], "channels": 2, "perceptual_stages": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run"))


def objective(run: Run, folder: Path | None = None, kind: str = "kl", **changes: Any) -> AutoencoderObjective:
    """Return the objective over a run; a folder for a tower makes the loss perceptual."""
    settings = AutoencoderSettings.model_validate({**SETTINGS, "kind": kind, **changes})
    stages = {stage: run.stages()[stage].path for stage in ("download", "curate")}
    tower = None if folder is None else tiny_tower(folder, "timm").model_dump(mode="json")
    root = str(run.store.root.parent)
    return AutoencoderObjective(root, stages, settings.model_dump(mode="json"), tower)


def batch_of(made: AutoencoderObjective) -> dict[str, torch.Tensor]:
    rows = made.rows()
    pictures = np.concatenate(
        [rows.load(unit)["picture"] for unit in range(len(rows.counts)) if rows.counts[unit]]
    )
    return {"picture": torch.from_numpy(pictures)}


def test_the_loss_is_l1_and_the_weighted_distance_of_features(run: Run, tmp_path: Path) -> None:
    made = objective(run, tmp_path)
    batch = batch_of(made)
    pictures = batch["picture"].float() / 255
    noise = Noise(0, torch.arange(len(pictures)))
    same, _ = made.loss(cast(nn.Module, lambda x, _: (x, x)), batch, noise)
    assert float(same) == 0
    grey = torch.full_like(pictures, 0.5)
    loss, terms = made.loss(cast(nn.Module, lambda x, _: (grey, x)), batch, noise)
    assert made.features is not None
    l1 = (pictures - 0.5).abs().mean()
    distance = feature_distance(made.features, grey, pictures).mean()
    torch.testing.assert_close(terms, {"l1": l1, "perceptual": distance})
    torch.testing.assert_close(loss, l1 + 0.3 * distance)


def test_the_noise_is_a_rows_own_and_a_codebook_has_none(run: Run) -> None:
    seen: list[torch.Tensor] = []

    def spy(pictures: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(noise)
        return pictures, pictures

    for positions in (torch.arange(6), torch.arange(3, 6)):
        batch = {"picture": torch.zeros(len(positions), 3, SIDE, SIDE, dtype=torch.uint8)}
        objective(run).loss(cast(nn.Module, spy), batch, Noise(0, positions))
    assert seen[0].shape == (6, 2, 4, 4)
    assert torch.equal(seen[0][3:], seen[1])
    assert float(seen[0].std()) == pytest.approx(0.1, rel=0.2)
    batch = {"picture": torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)}
    objective(run, kind="vq").loss(cast(nn.Module, spy), batch, Noise(0, torch.arange(2)))
    assert not seen[-1].any()


def test_val_figures_repeat_themselves_and_a_grid_shows_both(run: Run, tmp_path: Path) -> None:
    made = objective(run, tmp_path, "vq", quantiser={"levels": [3, 2], "min_code_use": 0})
    torch.manual_seed(0)
    model = made.model()
    figures = made.evaluate(model)
    assert figures == made.evaluate(model)
    assert set(figures) == {"loss", "l1", "perceptual", "psnr", "rfid", "code_use"}
    assert figures["loss"] == pytest.approx(figures["l1"] + 0.3 * figures["perceptual"])
    assert 0 < figures["code_use"] <= 1
    grid = made.show(model).pictures["reconstructions"]
    assert grid.shape[0] == 2 * SIDE
    assert grid.dtype == np.uint8


@pytest.mark.parametrize("workers", [2, 7])
def test_what_is_measured_on_val_does_not_depend_on_the_number_of_workers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Also with more workers than pictures."""
    made = objective(run, tmp_path, "vq", quantiser={"levels": [3, 2], "min_code_use": 0})
    torch.manual_seed(0)
    model, seen = made.model(), list[int]()
    assert sum(made.rows(Split.VAL).counts) < 7
    alone = made.evaluate(model)
    encode = codec_of(model).encode
    monkeypatch.setattr(model, "encode", lambda pictures: (seen.append(len(pictures)), encode(pictures))[1])
    for figures in on_each_rank(workers, lambda: made.evaluate(model)):
        assert figures == pytest.approx(alone, rel=1e-5)
    assert sum(seen) == sum(made.rows(Split.VAL).counts)


def test_rfid_is_that_of_the_towers_pooled_features(run: Run, tmp_path: Path) -> None:
    """0 where the pictures come back, more where they come back grey."""
    made = objective(run, tmp_path)
    assert made.features is not None
    pictures = torch.rand(6, 3, SIDE, SIDE)
    pooled = made.features.pooled(pictures)
    maps = made.features(pictures)
    assert torch.equal(pooled[:, : maps[0].shape[1]], maps[0].mean((2, 3)))
    assert len(pooled[0]) == sum(found.shape[1] for found in maps)
    grey = made.features.pooled(torch.full_like(pictures, 0.5))
    assert frechet_distance(pooled.numpy(), grey.numpy()) > frechet_distance(pooled.numpy(), pooled.numpy())


ADVERSARIAL: dict[str, Any] = {
    "adversarial": {"weight": 0.5, "start": 0.5, "widths": [8, 16]},
    "training": {"num_steps": 10, "global_batch": 4, "zero_stage": 0},
}


def test_the_adversarial_loss_begins_at_its_step_and_each_network_learns_from_its_own(run: Run) -> None:
    """From half of the steps on; the gradient of each network is that of its own loss alone."""
    made = objective(run, kind="vq", **ADVERSARIAL)
    torch.manual_seed(0)
    model = made.model()
    assert isinstance(model, AdversarialCodec)
    batch = {"picture": batch_of(made)["picture"][:4]}
    _, early = made.loss(model, batch, Noise(0, torch.arange(16, 20)))
    assert set(early) == {"l1", "perceptual"}
    noise = Noise(0, torch.arange(20, 24))
    loss, terms = made.loss(model, batch, noise)
    assert set(terms) == {"l1", "perceptual", "generator", "discriminator"}
    torch.testing.assert_close(loss.detach(), terms["l1"] + 0.5 * terms["generator"] + terms["discriminator"])
    loss.backward()
    together = {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }
    pictures = batch["picture"].float() / 255
    back, _ = model.codec(pictures, torch.zeros(4, 4, 4, 4))
    real, fake = model.discriminator(pictures), model.discriminator(back.detach())
    model.zero_grad()
    discriminator_loss(Verdicts(fake, real, fake)).backward()
    own = {f"discriminator.{name}": value.grad for name, value in model.discriminator.named_parameters()}
    model.discriminator.requires_grad_(False)
    judged = model.discriminator(back)
    ((back - pictures).abs().mean() + 0.5 * generator_loss(Verdicts(judged, real, fake))).backward()
    own |= {f"codec.{name}": value.grad for name, value in model.codec.named_parameters()}
    assert own.keys() == together.keys()
    for name, value in own.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-7)


def test_an_adversarial_codec_is_evaluated_and_committed_alone(run: Run) -> None:
    made = objective(run, kind="vq", **ADVERSARIAL)
    model = made.model()
    assert isinstance(model, AdversarialCodec)
    assert made.evaluate(model)["psnr"] == made.evaluate(model.codec)["psnr"]
    assert made.show(model).pictures
    state = codec_state(dict(model.state_dict()))
    assert state.keys() == model.codec.state_dict().keys()
    assert codec_state(state) == state


@pytest.mark.parametrize(
    ("values", "words"),
    [({"training": {"zero_stage": 3}}, "zero_stage to 0, 1 or 2"), ({"image_size": 24}, "multiple of 16")],
)
def test_an_adversarial_loss_that_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    given = {"kind": "vq", "adversarial": {"weight": 0.1, "widths": [8, 8, 8, 8]}, "image_size": 32, **values}
    with pytest.raises(ValueError, match=words):
        AutoencoderSettings.model_validate(given)


def test_only_the_end_of_a_training_tells_a_collapsed_codebook(run: Run) -> None:
    """Before it has learned, an autoencoder uses few codes: an evaluation on the way says nothing of the end."""
    made = objective(run, kind="vq", quantiser={"levels": [8, 8, 8]})
    model = codec_of(made.model())
    torch.nn.init.zeros_(model.down[-1].weight)  # pyright: ignore[reportArgumentType]
    figures = made.evaluate(model)
    assert figures["code_use"] < 0.05
    with pytest.raises(InputError, match=r"codebook collapsed: val pictures use .*% of its 512") as caught:
        check_code_use(figures, made.settings.quantiser)
    assert "\n" not in str(caught.value)
    check_code_use({"code_use": 0.05}, made.settings.quantiser)
    check_code_use({}, made.settings.quantiser)


LEARNED: dict[str, Any] = {
    "quantiser": {"codebook": "ema", "num_codes": 12, "decay": 0.5, "revive_below": 0.2},
    "training": {"num_steps": 10, "global_batch": 4, "zero_stage": 0},
}


@pytest.mark.parametrize("micro_batch", [4, 1])
def test_a_learned_codebook_starts_at_k_means_and_moves_between_steps(run: Run, micro_batch: int) -> None:
    """Within a step it stands still, so that micro-batches are one batch; an evaluation moves nothing."""
    made = objective(run, kind="vq", **LEARNED)
    torch.manual_seed(0)
    model = made.model()
    codes = codec_of(model).quantiser
    assert isinstance(codes, LearnedCodebook)
    pictures = batch_of(made)["picture"][:4]
    seen = [codes.codebook.clone()]
    for step in range(3):
        for first in range(0, 4, micro_batch):
            noise = Noise(0, torch.arange(4 * step + first, 4 * step + first + micro_batch))
            loss, terms = made.loss(model, {"picture": pictures[first : first + micro_batch]}, noise)
            assert set(terms) == {"l1", "perceptual", "commitment"}
            torch.testing.assert_close(loss.detach(), terms["l1"] + 0.25 * terms["commitment"])
            if first == 0:
                seen.append(codes.codebook.clone())
            assert torch.equal(codes.codebook, seen[-1])
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(seen))
    started = codec_of(made.model())
    started.load_state_dict(codec_of(model).state_dict())
    latents = codec_of(model).encode(unit_range(torch.from_numpy(first_rows(made.rows(), 64)["picture"])))
    torch.testing.assert_close(seen[1], k_means(vectors_of(latents), 12))
    made.evaluate(model)
    model.eval()
    made.loss(model, {"picture": pictures}, Noise(0, torch.arange(40, 44)))
    assert torch.equal(codes.codebook, seen[-1])


def test_micro_batches_move_the_codes_as_one_batch_does(run: Run) -> None:
    found: list[torch.Tensor] = []
    for micro_batch in (4, 1):
        made = objective(run, kind="vq", **LEARNED)
        torch.manual_seed(0)
        model = made.model()
        pictures = batch_of(made)["picture"][:4]
        for step in range(4):
            for first in range(0, 4, micro_batch):
                noise = Noise(0, torch.arange(4 * step + first, 4 * step + first + micro_batch))
                made.loss(model, {"picture": pictures[first : first + micro_batch]}, noise)
        found.append(model.state_dict()["quantiser.codebook"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_what_a_codebook_followed_is_not_committed(run: Run) -> None:
    made = objective(run, kind="vq", **LEARNED, adversarial=ADVERSARIAL["adversarial"])
    state = codec_state(dict(made.model().state_dict()))
    codec = ConvCodec(conv_config(made.settings))
    codec.load_state_dict(state)
    assert "quantiser.codebook" in state
    with pytest.raises(ValueError, match=r"set training\.zero_stage to 0, 1 or 2"):
        AutoencoderSettings.model_validate(
            {"kind": "vq", "quantiser": {"codebook": "ema"}, "training": {"zero_stage": 3}}
        )


def test_psnr_and_code_use_are_what_their_names_say() -> None:
    picture = torch.rand(2, 3, 4, 4) / 2
    torch.testing.assert_close(psnr(picture + 0.1, picture), torch.full((2,), 20.0), atol=1e-3, rtol=0)
    assert math.isfinite(float(psnr(picture, picture)[0]))
    assert code_use(torch.tensor([0, 0, 5, 7]), 100) == 0.75
    assert code_use(torch.arange(10).repeat(5), 20) == 0.5
