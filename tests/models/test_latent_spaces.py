"""Every latent space: registered, standardised per channel, spatial where it says so, exact where it can be."""

import math
from typing import Any, get_args

import pytest
import torch

from corgi.models.autoencoder import Autoencoder, fit_linear
from corgi.models.codebook import LearnedCodebook
from corgi.models.conv_codec import ConvCodec, ConvConfig
from corgi.models.latent_spaces import CODECS, LATENT_SPACES
from corgi.models.spatial_autoencoder import PixelCodec, SpatialAutoencoder
from corgi.names import TRAINED_SPACES, LatentSpaceName

SIDE = 16
CONFIGS: dict[LatentSpaceName, dict[str, Any]] = {
    "kl": {"widths": [8, 16], "blocks": 1, "channels": 3, "levels": []},
    "vq": {"widths": [8, 16], "blocks": 1, "channels": 1, "levels": [8, 5, 5]},
    "pretrained": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [8, 8],
        "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1],
        "scaling_factor": 0.5,
        "shift_factor": 0.25,
    },
    "pixels": {},
}


def pictures(count: int = 40) -> torch.Tensor:
    """Return pictures whose channels differ in mean and spread."""
    generator = torch.Generator().manual_seed(0)
    shades = torch.rand(count, 3, 1, 1, generator=generator)
    detail = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return (0.5 * shades + 0.4 * detail) * torch.tensor([1.0, 0.7, 0.3])[:, None, None]


def fitted(name: LatentSpaceName) -> Autoencoder:
    torch.manual_seed(0)
    if name == "linear":
        return fit_linear(pictures(), 8, 0)
    autoencoder = SpatialAutoencoder(CODECS[name](CONFIGS[name]), SIDE)
    autoencoder.measure(pictures().split(16))
    return autoencoder.eval()


def test_settings_offer_the_latent_spaces_that_are_registered() -> None:
    assert tuple(LATENT_SPACES) == get_args(LatentSpaceName)
    assert set(CODECS) == set(LATENT_SPACES) - {"linear"} == set(CONFIGS)
    assert set(CODECS) > TRAINED_SPACES


@pytest.mark.law
@pytest.mark.parametrize("name", LATENT_SPACES)
@torch.no_grad()
def test_law_latents_are_flat_and_standardised_and_rebuilt_from_what_is_committed(
    name: LatentSpaceName,
) -> None:
    space = fitted(name)
    latents = space.encode(pictures())
    assert latents.shape == (40, space.latent_dim) == (40, math.prod(space.latent_shape))
    plane = latents.view(40, *space.latent_shape).transpose(0, 1).flatten(1)
    torch.testing.assert_close(plane.mean(1), torch.zeros(len(plane)), atol=1e-3, rtol=0)
    torch.testing.assert_close(plane.std(1), torch.ones(len(plane)), atol=2e-2, rtol=0)
    decoded = space.decode(latents)
    assert decoded.shape == (40, 3, space.image_size, space.image_size) == pictures().shape
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1
    config = {} if name == "linear" else {"image_size": SIDE, "codec": CONFIGS[name]}
    rebuilt = LATENT_SPACES[name](config, space.state_dict())
    assert rebuilt.latent_shape == space.latent_shape
    assert torch.equal(rebuilt.encode(pictures()), latents)
    assert torch.equal(rebuilt.decode(latents), decoded)


@pytest.mark.law
@pytest.mark.parametrize("name", CODECS)
@torch.no_grad()
def test_law_a_spatial_latent_depends_on_the_picture_near_it(name: LatentSpaceName) -> None:
    """A change of the right edge leaves the latents of the left edge nearly alone; the flat order is (channel, row, column)."""
    space = fitted(name)
    channels, height, width = space.latent_shape
    assert height == width
    changed = pictures(1).clone()
    changed[..., -1] = 1
    moved = (
        (space.encode(changed) - space.encode(pictures(1))).view(channels, height, width).abs().sum((0, 1))
    )
    assert float(moved[-1]) > 3 * float(moved[0])


@torch.no_grad()
def test_law_a_learned_codebook_is_rebuilt_from_what_is_committed() -> None:
    """A config of before has no learned codes."""
    torch.manual_seed(0)
    config = {**CONFIGS["kl"], "num_codes": 6}
    space = SpatialAutoencoder(CODECS["vq"](config), SIDE)
    space.measure(pictures().split(16))
    latents = space.encode(pictures())
    rebuilt = LATENT_SPACES["vq"]({"image_size": SIDE, "codec": config}, space.state_dict())
    assert rebuilt.latent_shape == space.latent_shape == (3, 4, 4)
    assert torch.equal(rebuilt.encode(pictures()), latents)
    assert torch.equal(rebuilt.decode(latents), space.decode(latents))
    quantiser = space.get_submodule("codec.quantiser")
    assert isinstance(quantiser, LearnedCodebook)
    assert quantiser.num_codes == 6


def test_pixels_come_back_exactly() -> None:
    space = SpatialAutoencoder(PixelCodec(), SIDE)
    space.measure([pictures()])
    assert space.latent_shape == (3, SIDE, SIDE)
    torch.testing.assert_close(space.decode(space.encode(pictures())), pictures())


@torch.no_grad()
def test_the_demos_network_has_the_size_and_the_plane_that_its_settings_say() -> None:
    codec = ConvCodec(ConvConfig())
    assert 2.0e6 < sum(value.numel() for value in codec.parameters()) < 2.3e6
    assert codec.latent_shape(64) == (8, 8, 8)
    latents = codec.encode(torch.rand(3, 3, 64, 64))
    torch.testing.assert_close(latents.square().mean((1, 2, 3)), torch.ones(3))
    assert codec.decode(latents).shape == (3, 3, 64, 64)


@torch.no_grad()
def test_an_untrained_decoder_paints_no_chequer() -> None:
    """Every pixel of a cell that shuffles fill has one value at the start."""
    torch.manual_seed(0)
    codec = ConvCodec(ConvConfig((8, 16), channels=3))
    painted = codec.decode(torch.randn(2, 3, 4, 4))
    cells = painted.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    torch.testing.assert_close(cells, cells[..., :1].expand_as(cells))
    assert painted.std() > 0


def test_noise_reaches_the_picture_and_the_gradient_every_weight() -> None:
    torch.manual_seed(0)
    for levels in ((), (8, 5)):
        codec = ConvCodec(ConvConfig((8, 16), channels=2, levels=levels))
        for block in codec.modules():  # second convolutions start at zero
            if isinstance(block, torch.nn.Conv2d):
                torch.nn.init.normal_(block.weight, std=0.1)
        made, latents = codec(pictures(4), torch.zeros(4, 2, 4, 4))
        (made - pictures(4)).abs().mean().backward()
        assert all(value.grad is not None and bool(value.grad.any()) for value in codec.parameters())
        noisy, _ = codec(pictures(4), torch.randn(4, 2, 4, 4))
        assert not torch.equal(noisy, made)
        assert latents.shape == (4, 2, 4, 4)


def test_a_channel_that_is_constant_on_train_pictures_gives_finite_half_floats_on_others() -> None:
    space, given = SpatialAutoencoder(PixelCodec(), SIDE), pictures().clone()
    given[:20, 0] = 0.5
    space.measure([given[:20]])
    assert bool(space.encode(given).half().isfinite().all())
