"""What a loaded run paints: the same picture for a seed whatever is painted beside it, and no network built anew."""

import json

import numpy as np
import pytest
from PIL import Image

import corgi
from corgi.clip.towers import Tower
from corgi.diffusion.shifted import ShiftTable
from corgi.diffusion.sphere import slerp
from corgi.inference.generate import Generator
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.denoiser import LatentDenoiser
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior
from corgi.settings.errors import InputError, SettingsError
from corgi.settings.painting import PaintSettings
from corgi.tables.store import Store
from tests.support.painting_run import DATA, SIDE, painting_run

CAPTIONS = ["red heart", "a fox", "a much longer caption of several more words", "red heart", "fog"]
SEEDS = [5, 6, 7, 8, 5]


WORDS = {"network": "unet", "unet": {"widths": (8, 16), "heads": 2}, "num_text_tokens": 6, "encoding_dim": 32}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return corgi.load(painting_run(tmp_path_factory.mktemp("run")).folder)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def distance(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(pixels(a) - pixels(b)).max())


def picture(seed: int) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    return Image.fromarray(drawn)


def test_law_a_seed_paints_one_picture_whatever_the_batch(generator: Generator) -> None:
    together = generator.generate_each(CAPTIONS, SEEDS)
    for caption, seed, painted in zip(CAPTIONS, SEEDS, together, strict=True):
        [alone] = generator.generate(caption, seed=seed)
        assert distance(painted, alone) <= 1
    assert distance(together[0], together[3]) > 1  # another seed
    assert distance(together[0], together[4]) > 1  # another caption
    several = generator.generate("a fox", n=3, seed=5)
    assert distance(several[1], together[1]) <= 1


def test_a_picture_tells_what_it_was_made_from(generator: Generator) -> None:
    told = generator.generate("a fox", seed=3)[0].info
    assert (told["prompt"], told["seed"], told["run"], told["data"]) == ("a fox", "3", "tiny", DATA)
    assert told["models"] == generator.models
    assert json.loads(told["settings"])["steps"] == 4
    assert "similarity" not in told


def test_law_other_settings_share_every_network_and_name_what_they_change(generator: Generator) -> None:
    asked = PaintSettings(
        steps=7, sampler="dpm++", guidance=3.0, guidance_interval=(0.2, 0.8), best_of=2,
        prior_steps=5, prior_sampler="ddim", prior_guidance=2.0, prior_candidates=3,
    )  # fmt: skip
    other = generator.using(asked)
    assert other.prior_sampling == Sampling(5, "ddim", 2.0, 3)
    assert other.prior is generator.prior
    assert other.towers is generator.towers
    assert other.decoder.network is generator.decoder.network
    assert other.manner == {**asked.model_dump(), "guidance_interval": [0.2, 0.8]}
    assert generator.using(PaintSettings()) == generator
    assert distance(other.generate("a fox")[0], generator.generate("a fox")[0]) > 1


def test_no_network_is_built_per_prompt(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was built")

    for kind in (Prior, LatentDenoiser, LinearAutoencoder, Tower, ShiftTable):
        monkeypatch.setattr(kind, "__init__", refuse)
    monkeypatch.setattr(Store, "path", refuse)
    asked = generator.using(PaintSettings(steps=3, best_of=2))
    assert len(asked.generate_each(["a", "b"], [0, 1])) == 2


def test_law_the_best_of_several_is_the_closest_to_its_caption(generator: Generator) -> None:
    [text] = generator.text_embedding(["a fox"])
    best = generator.using(PaintSettings(best_of=4)).generate("a fox", n=3, seed=1)
    plain = generator.generate("a fox", n=3, seed=1)
    cosines = [(generator.image_embedding(pictures) @ text).tolist() for pictures in (best, plain)]
    assert all(one >= other - 1e-6 for one, other in zip(*cosines, strict=True))
    assert sum(cosines[0]) > sum(cosines[1])
    assert [float(painted.info["similarity"]) for painted in best] == pytest.approx(cosines[0], abs=1e-5)


def test_the_last_seed_of_all_may_compete_too(generator: Generator) -> None:
    [painted] = generator.using(PaintSettings(best_of=2)).generate("a fox", seed=2**63 - 1)
    assert painted.size == (SIDE, SIDE)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "ancestral"])
def test_law_the_last_step_is_the_picture(generator: Generator, sampler: str) -> None:
    asked = generator.using(PaintSettings(steps=6, sampler=sampler, guidance=2.0))  # pyright: ignore[reportArgumentType]
    shown = asked.steps("a fox", seed=4)
    assert len(shown) == 6
    assert distance(shown[-1], asked.generate("a fox", seed=4)[0]) <= 1
    assert distance(shown[0], shown[-1]) > 1


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return corgi.load(painting_run(tmp_path_factory.mktemp("cascade"), num_upsamplers=2).folder)


def test_law_a_cascade_paints_at_the_side_of_its_last_step_whatever_the_batch(cascade: Generator) -> None:
    together = cascade.generate_each(CAPTIONS, SEEDS)
    assert {painted.size for painted in together} == {(4 * SIDE, 4 * SIDE)}
    assert cascade.side == 4 * SIDE
    [alone] = cascade.generate(CAPTIONS[1], seed=SEEDS[1])
    assert distance(together[1], alone) <= 1
    assert distance(together[0], together[3]) > 1  # another seed
    told = json.loads(alone.info["settings"])
    assert [(step["side"], step["steps"]) for step in told["upsamplers"]] == [(2 * SIDE, 3), (4 * SIDE, 3)]


def test_law_the_last_step_of_a_cascade_is_the_picture(cascade: Generator) -> None:
    """The decoder's steps, then those of each step of the cascade, at one side."""
    shown = cascade.steps("a fox", seed=4)
    assert len(shown) == 4 + 3 + 3
    assert {painted.size for painted in shown} == {(4 * SIDE, 4 * SIDE)}
    assert distance(shown[-1], cascade.generate("a fox", seed=4)[0]) <= 1
    assert distance(shown[3], shown[-1]) > 1


def test_law_variations_are_painted_from_the_pictures_own_embedding(generator: Generator) -> None:
    given = picture(0)
    [first, second] = generator.variations(given, n=2, seed=9)
    embedding = generator.image_embedding([given])
    assert distance(first, generator.paint(embedding, [9])[0]) <= 1
    assert distance(second, generator.paint(embedding, [10])[0]) <= 1


def test_law_a_mixture_is_painted_on_the_arc_between_caption_and_picture(generator: Generator) -> None:
    parts = ["a fox", picture(1)]
    [painted] = generator.mix(parts, [1.0, 3.0], seed=2)
    between = slerp(generator.embedding_of(parts[0], 2), generator.embedding_of(parts[1], 2), 0.75)
    assert distance(painted, generator.paint(between[None], [2])[0]) <= 1
    ends = [generator.mix(parts, weights, seed=2)[0] for weights in ([1.0, 0.0], [1.0, 1e9])]
    assert distance(ends[0], generator.generate("a fox", seed=2)[0]) <= 1
    assert distance(ends[1], generator.variations(picture(1), seed=2)[0]) <= 1


def test_law_an_interpolation_begins_and_ends_at_its_parts(generator: Generator) -> None:
    frames = generator.interpolate("a fox", "red heart", frames=5, seed=3)
    assert len(frames) == 5
    assert distance(frames[0], generator.generate("a fox", seed=3)[0]) <= 1
    assert distance(frames[-1], generator.generate("red heart", seed=3)[0]) <= 1


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: run.generate_each(["a fox", " "], [0, 1]), "caption 2 has no words"),
        (lambda run: run.generate_each(["a fox"], [-1]), "seed=-1"),
        (lambda run: run.variations(picture(0), n=0), "n=0"),
        (lambda run: run.mix(["a fox"]), "cannot be mixed"),
        (lambda run: run.mix(["a fox", "b"], [1.0]), "as many weights"),
        (lambda run: run.interpolate("a fox", "b", frames=1), "frames=1"),
        (lambda run: run.steps("a fox" * 10_000), "16384 characters"),
    ],
)
def test_what_cannot_be_painted_is_one_line(generator: Generator, ask, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        ask(generator)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", [{"steps": 101}, {"prior_steps": 101}])
def test_more_steps_than_timesteps_are_one_line(generator: Generator, asked: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="has only 100 timesteps"):
        generator.using(PaintSettings(**asked))  # pyright: ignore[reportArgumentType]


def test_nothing_asked_for_is_nothing_painted(generator: Generator) -> None:
    assert generator.generate_each([], []) == []


def test_a_decoder_that_reads_words_is_told_the_caption(
    tmp_path_factory: pytest.TempPathFactory, generator: Generator
) -> None:
    """The same embedding is painted otherwise for another caption; a seed still paints one picture whatever the batch."""
    reader = corgi.load(painting_run(tmp_path_factory.mktemp("words"), decoder=WORDS).folder)
    z = reader.embeddings(["a fox"], [3])
    told, other, nothing = (
        reader.paint(z, [3], captions)[0] for captions in (["a fox"], ["red heart"], None)
    )
    assert min(distance(told, other), distance(told, nothing)) > 1
    [asked] = reader.generate("a fox", seed=3)
    assert distance(asked, told) <= 1
    together = reader.generate_each(["red heart", "a fox", "a fox"], [5, 3, 4])
    assert distance(together[1], told) <= 1
    assert distance(reader.steps("a fox", 3)[-1], told) <= 1
    [variation] = generator.paint(z, [3], ["a fox"])  # a decoder without words reads none
    assert distance(variation, generator.paint(z, [3])[0]) == 0
