"""The linear autoencoder is PCA: exact on its own span, best among linear maps, standardised latents."""

import pytest
import torch

from corgi.models.autoencoder import LinearAutoencoder, fit_linear


def _planted(rows: int, rank: int, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    basis = torch.rand(rank, 3 * side * side, generator=generator)
    weights = torch.rand(rows, rank, generator=generator)
    return (weights @ basis / rank).view(rows, 3, side, side)


def test_pictures_of_low_rank_come_back_exactly():
    pictures = _planted(200, 5)
    autoencoder = fit_linear(pictures, 8, seed=0)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(pictures)), pictures, atol=1e-4, rtol=0)


def test_latents_of_the_fitted_pictures_are_standardised_and_uncorrelated():
    pictures = _planted(500, 12)
    latents = fit_linear(pictures, 6, seed=0).encode(pictures)
    torch.testing.assert_close(latents.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(latents.T), torch.eye(6), atol=2e-2, rtol=0)


def test_latents_of_pictures_it_was_not_fitted_on_are_finite_half_floats_however_few_it_was_fitted_on():
    """The last component of as many pictures as components has no variance on them."""
    pictures = torch.rand(60, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    autoencoder = fit_linear(pictures[:50], 108, seed=0)
    assert autoencoder.latent_dim == 50
    assert bool(autoencoder.encode(pictures).half().isfinite().all())


def test_more_components_never_reconstruct_worse():
    pictures = torch.rand(100, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    errors = []
    for latent_dim in (2, 8, 32):
        autoencoder = fit_linear(pictures, latent_dim, seed=0)
        errors.append(float((autoencoder.decode(autoencoder.encode(pictures)) - pictures).square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_the_state_rebuilds_the_autoencoder_and_odd_pixels_are_refused():
    fitted = fit_linear(_planted(50, 3), 4, seed=0)
    rebuilt = LinearAutoencoder(**fitted.state_dict())
    latents = torch.randn(2, fitted.latent_dim, generator=torch.Generator().manual_seed(2))
    assert torch.equal(rebuilt.decode(latents), fitted.decode(latents))
    with pytest.raises(ValueError, match="square"):
        LinearAutoencoder(torch.zeros(10), torch.zeros(2, 10), torch.ones(2))
