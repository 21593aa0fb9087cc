"""The upsampler stages: what a training sees, and a tiny cascade of two steps that is trained, committed and used."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0
from corgi.feeding.noise import Noise
from corgi.feeding.stages import Pack
from corgi.flow.dag import Dag, open_dag
from corgi.flow.executor import in_process
from corgi.inference.generate import Generator
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.spatial_autoencoder import pixel_space
from corgi.models.text_prior import Sampling
from corgi.models.upsampler import enlarged, shrunk, upsampled
from corgi.names import UPSAMPLERS
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError
from corgi.tables.run import Run
from corgi.training.decoder_network import network_of, process_of
from corgi.training.pseudo_text import PseudoText
from corgi.training.stages import Upsampler
from corgi.training.upsampler import UpsamplerObjective, check_sizes, load_upsampler, upsampler_of
from tests.support import drawn
from tests.support.objectives import UPSAMPLER, decoder_objective, decoder_run, every_row, upsampler_objective
from tests.support.tables import DIM
from tests.support.tiny_towers import tiny_tower

pytestmark = pytest.mark.slow

STEP = UPSAMPLER.model_dump(mode="json")
TRAINING = {"num_steps": 3, "global_batch": 8, "precision": "fp32", "ema_decay": 0.5, "zero_stage": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return decoder_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def objective(run: Run) -> UpsamplerObjective:
    return upsampler_objective(run)


def test_a_sample_is_one_square_of_the_picture_large_and_small(run: Run) -> None:
    """Without noise the small one is what the large one becomes when its picture is shrunk and enlarged; corners differ."""
    quiet = upsampler_objective(run, low_noise=0.0, painted_low_noise=0.0)
    batch = every_row(quiet.rows())
    latent, given = quiet.sample(batch, Noise(0, torch.arange(len(batch["image"]))), augment=True)
    pictures = batch["picture"].float() / 255
    soft = enlarged(shrunk(pictures, UPSAMPLER.low_side), UPSAMPLER.side)
    found: set[tuple[int, int]] = set()
    for row in range(len(latent)):
        large, small = ((value[row].view(3, 8, 8) + 1) / 2 for value in (latent, given["low"]))
        places = [(top, left) for top in range(9) for left in range(9)]
        fits = [
            place
            for place in places
            if torch.allclose(
                pictures[row][:, place[0] : place[0] + 8, place[1] : place[1] + 8], large, atol=1e-5
            )
            and torch.allclose(
                soft[row][:, place[0] : place[0] + 8, place[1] : place[1] + 8], small, atol=1e-5
            )
        ]
        assert fits
        found.add(fits[0])
    assert len(found) > 2
    assert not given["low_level"].any()


def test_eq_16_an_oracle_of_the_square_has_no_loss_and_hears_the_level(objective: UpsamplerObjective) -> None:
    batch = every_row(objective.rows())
    noise = Noise(0, torch.arange(len(batch["image"])))
    heard: list[Tensor] = []

    def oracle(
        z_t: Tensor, t: Tensor, embedding: Tensor, drop: Tensor, low: Tensor, low_level: Tensor
    ) -> Tensor:
        heard.append(low_level)
        latent, _ = objective.sample(batch, noise, augment=True)
        return from_x0(objective.process, latent, z_t, t, torch.zeros_like(t), "v")

    assert float(objective.loss(cast(nn.Module, oracle), batch, noise)[0]) < 1e-10
    assert 0 <= float(heard[0].min()) < float(heard[0].max()) <= UPSAMPLER.low_noise**2


def test_it_is_evaluated_and_shown_whole(objective: UpsamplerObjective) -> None:
    torch.manual_seed(0)
    model = objective.model()
    assert objective.evaluate(model) == objective.evaluate(model) != {}
    assert objective.show(model).pictures["samples"].shape[0] == 3 * UPSAMPLER.side


def test_pictures_that_are_all_smaller_are_one_line() -> None:
    check_sizes("upsampler", 256, 9, 10)
    with pytest.raises(
        InputError, match=r"upsampler\.side=256, but all 10 train pictures are stored smaller"
    ):
        check_sizes("upsampler", 256, 10, 10)


def test_pseudo_text_is_heard_as_the_decoder_hears_it(run: Run) -> None:
    """Both are conditioned on one embedding of the same noise, standardised by its own moments."""
    plain, language_free = upsampler_objective(run), upsampler_objective(run, pseudo_text_xi=3.0)
    decoder = decoder_objective(run, pseudo_text_xi=3.0)
    assert not torch.equal(plain.table.mean, language_free.table.mean)
    for name, value in decoder.table.state_dict().items():
        assert torch.equal(value, language_free.table.state_dict()[name])
    batch = every_row(language_free.rows())
    heard: list[Tensor] = []

    def spy(z_t: Tensor, t: Tensor, embedding: Tensor, drop: Tensor, **_: Tensor) -> Tensor:
        heard.append(embedding)
        return torch.zeros_like(z_t)

    noise = Noise(0, torch.arange(len(batch["image"])))
    language_free.loss(cast(nn.Module, spy), batch, noise)
    assert torch.equal(heard[0], PseudoText(3.0)(batch["image"], noise))


def cascade(root: Path, *steps: str) -> Dag:
    """Return some steps of a cascade from 8 to 16 and to 32 px, over drawn pictures of 80 px and a tiny tower."""
    tower = tiny_tower(root, "timm").model_dump(mode="json")
    sections = {
        "upsampler": {**STEP, "training": TRAINING},
        "second_upsampler": {**STEP, "low_side": 16, "side": 32, "training": TRAINING},
    }
    given = {"embed": {"towers": [tower]}, "autoencoder": {"image_size": 8, "latent_dim": 4}, **sections}
    made = drawn.dag(root / "runs", **given)
    return open_dag([*made.stages, Pack(), *map(Upsampler, steps)], made.recipe)


def test_a_tiny_cascade_is_trained_committed_and_used(tmp_path: Path) -> None:
    """Each step by its own training; what generate paints then has the side of the last."""
    dag = cascade(tmp_path, *UPSAMPLERS)
    with in_process():
        drawn.run(dag, UPSAMPLERS[-1])
        assert drawn.run(dag, UPSAMPLERS[-1]) == 0
    shards = [dag.run.shards(name)[0] for name in dag.recipe.upsamplers]
    assert [shard.facts["enlarged"] for shard in shards] == [0, 0]
    steps = [load_upsampler(dag.run.store, shard) for shard in shards]
    assert [(step.low_side, step.side) for step in steps] == [(8, 16), (16, 32)]
    dim = steps[0].painter.network.embedding_table.dim  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    settings = DecoderSettings(sample_steps=2)
    silent = PictureDecoder(
        lambda z_t, *_, **__: torch.zeros_like(z_t), process_of(settings, (192,)), pixel_space(8)
    )
    nobody: Any = None
    generator = Generator((), nobody, Sampling(2), silent, settings, upsamplers=tuple(steps))
    embedding = torch.randn(3, dim)
    pictures = generator.paint(embedding, [1, 2, 3])
    assert [picture.size for picture in pictures] == 3 * [(32, 32)]
    again = generator.paint(embedding[1:2], [2])
    difference = np.asarray(again[0], int) - np.asarray(pictures[1], int)
    assert np.abs(difference).max() <= 1


def test_a_step_of_a_cascade_paints_what_was_trained(objective: UpsamplerObjective) -> None:
    """A network for squares of 8 px and one for pictures of 16 px have the same weights."""
    torch.manual_seed(0)
    small = objective.model()
    for parameter in small.parameters():
        nn.init.normal_(parameter, std=0.2)
    whole = network_of(UPSAMPLER, (3, UPSAMPLER.side, UPSAMPLER.side), objective.table)
    whole.load_state_dict(small.state_dict())
    upsampler = upsampler_of(UPSAMPLER, whole, objective.painted)
    pictures = torch.randint(0, 256, (2, 8, 8, 3)).byte()
    assert upsampled([upsampler], pictures, torch.randn(2, DIM), [0, 1]).shape == (2, 16, 16, 3)
