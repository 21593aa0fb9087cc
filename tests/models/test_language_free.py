"""Laws of the language-free baselines: cosines, limits, unit norms, and the interface of a prior."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from corgi.evaluation.metrics import softmax_average
from corgi.models.embedder import Embedder, Sampling
from corgi.models.language_free import (
    NearestPictures,
    RawText,
    SoftmaxAverage,
    TrainablePerturbation,
    TrueEmbedding,
    contrastive,
    fixed_perturbation,
    nearest_mean,
    optimised,
    retrieved,
    told_apart,
    xi_of,
)
from corgi.models.text_prior import TextPrior


def units(rows: int, dim: int = 32, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def normals(rows: int, dim: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def is_unit(rows: Tensor) -> bool:
    return bool((rows.norm(dim=-1) - 1).abs().max() < 1e-5)


@pytest.mark.parametrize("dim", [64, 512, 1536])
@pytest.mark.parametrize("xi", [0.3, 1.0, 2.65, 3.0])
def test_law_the_cosine_of_lafites_pseudo_text_is_that_of_xi_whatever_the_dimension(
    dim: int, xi: float
) -> None:
    z = units(400, dim)
    h = fixed_perturbation(z, normals(400, dim), xi)
    assert is_unit(h)
    cosine = (h * z).sum(-1)
    expected = 1 / (1 + xi**2) ** 0.5
    assert float(cosine.mean()) == pytest.approx(expected, abs=4 / (400 * dim) ** 0.5 + 1 / dim)
    assert float(cosine.std()) < 1.5 / dim**0.5
    assert xi_of(expected) == pytest.approx(xi)


def test_law_xi_zero_is_z_and_the_length_of_z_does_not_matter() -> None:
    z, eps = units(9), normals(9)
    torch.testing.assert_close(fixed_perturbation(z, eps, 0.0), z)
    torch.testing.assert_close(fixed_perturbation(7 * z, 0.1 * eps, 2.0), fixed_perturbation(z, eps, 2.0))


@pytest.mark.parametrize("cosine", [0.0, -0.5, 1.1, float("nan")])
def test_a_cosine_that_no_xi_has_is_refused(cosine: float) -> None:
    with pytest.raises(ValueError, match="cosine"):
        xi_of(cosine)


def test_law_the_trainable_perturbation_starts_as_unit_noise_and_learns_to_find_captions() -> None:
    """On pairs whose captions are a turned copy of the pictures, which no noise alone can follow."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(32, 32)).Q
    z, eps = units(256), normals(256)
    text = z @ turn
    module = TrainablePerturbation(32, width=64)
    torch.testing.assert_close(module(z, eps), F.normalize(z + eps, dim=-1))
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    before = float(contrastive(module(z, eps).detach(), text, 0.1))
    for step in range(200):
        rows = torch.randperm(256)[:64]
        loss = contrastive(module(z[rows], normals(64, seed=step)), text[rows], 0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    h = module(z, eps).detach()
    assert is_unit(h)
    assert float(contrastive(h, text, 0.1)) < 0.5 * before
    assert float((h * text).sum(-1).mean()) > 0.5


def test_law_the_contrastive_loss_is_least_for_the_own_rows_and_log_n_for_equal_ones() -> None:
    z = units(16)
    assert float(contrastive(z, z, 0.05)) < float(contrastive(z.roll(1, 0), z, 0.05))
    same = z[:1].repeat(16, 1)
    assert float(contrastive(same, z[:1].repeat(16, 1), 0.05)) == pytest.approx(np.log(16), rel=1e-5)


def test_law_one_retrieved_text_is_the_nearest_and_many_at_a_high_temperature_are_their_mean() -> None:
    z, pool = units(5), units(40, seed=3)
    nearest = (z @ pool.mT).argmax(1)
    torch.testing.assert_close(retrieved(z, pool, 1, 0.05), pool[nearest])
    torch.testing.assert_close(
        retrieved(z, pool, 40, 1e6), F.normalize(pool.mean(0), dim=-1).expand(5, -1), atol=1e-4, rtol=0
    )
    assert is_unit(retrieved(z, pool, 100, 0.05))


def test_law_optimising_finds_the_own_picture_better_each_step() -> None:
    z, pool = units(24), units(12, seed=3)
    h = retrieved(z, pool, 4, 0.05)
    losses = [float(contrastive(optimised(h, z, z, steps), z, 0.05)) for steps in (0, 1, 5, 20)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]
    assert is_unit(optimised(h, z, z))
    assert not optimised(h, z, z).requires_grad


def test_law_telling_apart_is_the_contrastive_loss_and_leaves_the_own_picture_out_of_the_others() -> None:
    h, z = units(24, seed=3), units(24)
    expected = contrastive(h, z, 0.05)
    torch.testing.assert_close(told_apart(h, z, z, 0.05).mean(), expected)
    twice = told_apart(h, z, torch.cat([z, z[:1]]), 0.05)
    torch.testing.assert_close(twice[0], told_apart(h, z, z, 0.05)[0])
    assert (twice[1:] > told_apart(h, z, z, 0.05)[1:]).all()
    torch.testing.assert_close(told_apart(h[5:7], z[5:7], z, 0.05), told_apart(h, z, z, 0.05)[5:7])


def test_law_an_optimised_feature_does_not_depend_on_its_batch() -> None:
    h, z, others = units(24, seed=3), units(24), units(60, seed=4)
    torch.testing.assert_close(optimised(h[5:7], z[5:7], others), optimised(h, z, others)[5:7])


def test_law_the_softmax_average_is_that_of_the_evaluation() -> None:
    text, train_text, train_image = units(7), units(50, seed=2), units(50, seed=3)
    expected = softmax_average(text.numpy(), train_text.numpy(), train_image.numpy(), 0.05)
    found = SoftmaxAverage(train_text, train_image).sample(text, range(7), Sampling())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_law_one_neighbour_is_the_nearest_picture_and_all_are_their_mean() -> None:
    text, image = units(6), units(30, seed=4)
    torch.testing.assert_close(nearest_mean(text, image, 1), image[(text @ image.mT).argmax(1)])
    torch.testing.assert_close(
        nearest_mean(text, image, 30), F.normalize(image.mean(0), dim=-1).expand(6, -1)
    )


def embedders() -> list[Embedder]:
    image = units(6, seed=5)
    return [
        RawText(),
        SoftmaxAverage(units(30), units(30, seed=2)),
        NearestPictures(units(30), 3),
        TrueEmbedding(image),
    ]


@pytest.mark.parametrize("embedder", embedders(), ids=lambda one: type(one).__name__)
def test_law_each_is_a_prior_by_its_interface_and_gives_unit_rows(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert issubclass(TextPrior, Embedder)
    text = 3 * units(6)
    found = embedder.sample(text, range(6), Sampling(), None)
    assert found.shape == text.shape
    assert is_unit(found)
    if not isinstance(embedder, TrueEmbedding):  # a row depends on its caption alone
        torch.testing.assert_close(embedder.sample(text[2:3], [9], Sampling()), found[2:3])


def test_true_embeddings_of_other_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 captions, but 6 true"):
        TrueEmbedding(units(6)).sample(units(2), range(2), Sampling())
