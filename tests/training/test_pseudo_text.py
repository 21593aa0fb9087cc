"""What a decoder of pseudo text is conditioned on, how it is standardised, and how it is prepared from captioned pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from corgi.feeding.noise import Noise
from corgi.settings.decoder import DecoderSettings
from corgi.settings.errors import InputError
from corgi.training import decoder, denoising, pseudo_text, upsampler
from corgi.training.pseudo_text import (
    PSEUDO_TEXT,
    PreparedPseudoText,
    PseudoText,
    load,
    prepare,
    prepared,
)
from tests.support.objectives import decoder_objective, decoder_run, every_row
from tests.support.shapes import unchecked

DIM = 48
PREPARED = ("trained", "retrieved")


def units(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, DIM, generator=generator) + 0.5 * torch.ones(DIM), dim=-1)


def noise(rows: int, seed: int = 0, first: int = 0) -> Noise:
    return Noise(seed, torch.arange(first, first + rows))


def pairs(rows: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and captions that are a turned copy of them: captions lie elsewhere than pictures, as those of a CLIP do."""
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(DIM, DIM)).Q
    return units(rows), units(rows) @ turn


@pytest.fixture(scope="module", autouse=True)
def briefly() -> Iterator[None]:
    """Train for a few small steps: each is 4 M weights."""
    with pytest.MonkeyPatch.context() as patched, unchecked():
        patched.setattr(pseudo_text, "STEPS", 60)
        patched.setattr(pseudo_text, "BATCH", 64)
        yield


@pytest.fixture(scope="module")
def made() -> dict[str, PreparedPseudoText]:
    return {name: prepared(name, *pairs(), seed=0) for name in PREPARED}  # pyright: ignore[reportArgumentType]


def test_its_draw_is_no_other_draw_of_the_decoder() -> None:
    """Nor of an upsampler, nor of the words beside the embedding."""
    draws = [
        *(denoising.TIMESTEP, denoising.EPS, denoising.DROP, denoising.PERTURBATION, denoising.LEVEL),
        *(decoder.CAPTION, decoder.DROP_CAPTION),
        *(upsampler.ROW, upsampler.COLUMN, upsampler.LOW_LEVEL, upsampler.LOW_NOISE),
    ]
    assert len({*draws, PSEUDO_TEXT}) == len(draws) + 1


def test_law_xi_zero_is_the_embedding_itself() -> None:
    z = units(5)
    assert PseudoText()(z, noise(5)) is z
    mean, std = z.mean(0).numpy(), z.std(0).numpy()
    for found, given in zip(PseudoText().moments(mean, std), (mean, std), strict=True):
        np.testing.assert_allclose(found, given)


@pytest.mark.parametrize("xi", [0.5, 2.65])
def test_law_the_moments_are_those_of_the_condition(xi: float) -> None:
    z = units(20_000)
    h = PseudoText(xi)(z, noise(len(z), seed=3)).numpy()
    mean, std = PseudoText(xi).moments(z.mean(0).numpy(), z.std(0).numpy())
    np.testing.assert_allclose(h.mean(0), mean, atol=0.006)
    np.testing.assert_allclose(h.std(0), std, rtol=0.05)


@pytest.mark.parametrize("name", PREPARED)
def test_law_prepared_moments_are_those_of_the_condition(
    made: dict[str, PreparedPseudoText], name: str
) -> None:
    z = units(4000)
    h = made[name](z, noise(len(z), seed=3)).numpy()
    np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1, atol=1e-5)
    mean, std = made[name].moments(np.zeros(DIM), np.ones(DIM))
    np.testing.assert_allclose(h.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(h.std(0), std, rtol=0.25)


@pytest.mark.parametrize("name", ["fixed", *PREPARED])
def test_law_a_row_depends_on_its_picture_and_its_own_place_alone(
    made: dict[str, PreparedPseudoText], name: str
) -> None:
    condition, z = {"fixed": PseudoText(2.0), **made}[name], units(9)
    whole, part = condition(z, noise(9, 1)), condition(z[4:], noise(5, 1, 4))
    torch.testing.assert_close(whole[4:], part)
    assert not whole.requires_grad


@pytest.mark.parametrize("name", PREPARED)
def test_law_prepared_features_find_their_captions_better_than_pictures_do(
    made: dict[str, PreparedPseudoText], name: str
) -> None:
    """Of the pictures that were read: the turned captions are then closer, and the own one is the closest more often."""
    image, text = pairs()
    h = made[name](image, noise(len(image)))
    own, plain = (h * text).sum(-1).mean(), (image * text).sum(-1).mean()
    assert float(own) > float(plain) + 0.1
    if name == "trained":
        found = ((h @ text.mT).argmax(1) == torch.arange(len(text))).float().mean()
        assert float(found) > 0.5


def test_law_a_retrieved_feature_tells_its_picture_from_others(made: dict[str, PreparedPseudoText]) -> None:
    image, _ = pairs()
    h = made["retrieved"](image[:50], noise(50))
    assert ((h @ image.mT).argmax(1) == torch.arange(50)).float().mean() > 0.9


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for fewer steps still, where nothing has to be learned."""
    monkeypatch.setattr(pseudo_text, "STEPS", 4)


def test_law_what_is_prepared_is_a_function_of_the_seed(few_steps: None) -> None:
    made = prepared("trained", *pairs(), seed=0)
    torch.manual_seed(99)
    again, other = prepared("trained", *pairs(), seed=0), prepared("trained", *pairs(), seed=1)
    z = units(8)
    torch.testing.assert_close(again(z, noise(8)), made(z, noise(8)))
    assert (other(z, noise(8)) - again(z, noise(8))).abs().max() > 1e-3


@pytest.mark.parametrize("name", PREPARED)
def test_a_decoder_trains_on_what_was_prepared_from_the_training_table(
    few_steps: None, tmp_path: Path, name: str
) -> None:
    run = decoder_run(tmp_path)
    settings = DecoderSettings(pseudo_text=name)  # pyright: ignore[reportArgumentType]
    root, pack = str(run.store.root.parent), run.stages()["pack"].path
    path = str(tmp_path / "work" / "pseudo_text.safetensors")
    prepare(root, pack, settings.model_dump(mode="json"), path)
    first = Path(path).read_bytes()
    prepare(root, pack, settings.model_dump(mode="json"), path)
    assert Path(path).read_bytes() == first
    objective = decoder_objective(run, prepared=path, pseudo_text=name)
    batch = every_row(objective.rows())
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, z_t, t, embedding, drop):
            seen["embedding"] = embedding
            return torch.zeros_like(z_t)

    rows = len(batch["image"])
    assert float(objective.loss(Spy(), batch, noise(rows))[0]) > 0
    expected = load(settings, path)(batch["image"].float(), noise(rows))
    torch.testing.assert_close(seen["embedding"], expected)
    assert (seen["embedding"] - batch["image"]).abs().max() > 1e-3
    mean, _ = load(settings, path).moments(np.zeros(1), np.ones(1))
    np.testing.assert_allclose(objective.table.mean[0].numpy(), mean, atol=1e-6)


def test_without_captions_there_is_nothing_to_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = decoder_run(tmp_path)
    monkeypatch.setattr("corgi.training.pseudo_text.CaptionedRows.__init__", _without_rows)
    told = DecoderSettings(pseudo_text="retrieved").model_dump(mode="json")
    with pytest.raises(InputError, match="needs captions") as caught:
        prepare(str(run.store.root.parent), run.stages()["pack"].path, told, str(tmp_path / "none"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()


def _without_rows(rows, *_) -> None:
    rows.counts = []
