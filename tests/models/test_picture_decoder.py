"""A ready decoder: bytes out, each row its own, the oracle's picture when the network is an oracle."""

import torch
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.denoiser import DenoiserConfig, LatentDenoiser
from corgi.models.picture_decoder import PictureDecoder, to_bytes

SIDE, LATENT, DIM = 4, 6, 8


def _parts() -> tuple[ShiftedDiffusion, LinearAutoencoder]:
    torch.manual_seed(0)
    pixels = 3 * SIDE * SIDE
    components = torch.linalg.qr(torch.randn(pixels, LATENT)).Q.mT
    autoencoder = LinearAutoencoder(torch.full((pixels,), 0.5), components, torch.full((LATENT,), 0.2))
    return ShiftedDiffusion(ShiftTable.ddpm(LATENT), Schedule.named("cosine_zero_snr", 50)), autoencoder


class _Oracle(nn.Module):
    """Answers the v that leads to one known latent."""

    def __init__(self, process: ShiftedDiffusion, latent: Tensor) -> None:
        super().__init__()
        self.process, self.latent = process, latent

    def forward(self, z_t: Tensor, t: Tensor, embedding: Tensor, drop_mask: Tensor) -> Tensor:
        z_0 = self.latent.expand(len(z_t), -1)
        return from_x0(self.process, z_0, z_t, t, torch.zeros_like(t), "v")


def test_law_17_an_oracle_ends_at_its_picture_whatever_the_seed_and_guidance():
    process, autoencoder = _parts()
    latent = torch.randn(1, LATENT)
    decoder = PictureDecoder(_Oracle(process, latent), process, autoencoder)
    painted = decoder.sample(torch.zeros(3, DIM), [0, 1, 2], steps=7, guidance=2.0)
    expected = to_bytes(autoencoder.decode(latent))
    assert painted.shape == (3, SIDE, SIDE, 3)
    assert painted.dtype == torch.uint8
    assert (painted.int() - expected.int()).abs().max() <= 1


def test_a_row_depends_on_its_own_embedding_and_seed_alone():
    process, autoencoder = _parts()
    network = LatentDenoiser(DenoiserConfig(LATENT, DIM, width=16, depth=1))
    nn.init.normal_(network.output.weight, std=0.5)
    decoder = PictureDecoder(network.eval(), process, autoencoder)
    embedding = torch.randn(4, DIM)
    batch, alone = decoder.sample(embedding, [5, 6, 7, 8]), decoder.sample(embedding[2:3], [7])
    assert (batch[2:3].int() - alone.int()).abs().max() <= 1
    assert not torch.equal(batch[0], batch[1])


def test_bytes_are_rounded_and_channels_last():
    picture = torch.zeros(1, 3, 2, 2)
    picture[0, 1, 0, 1] = 0.999
    painted = to_bytes(picture)
    assert painted[0, 0, 1].tolist() == [0, 255, 0]


def test_law_a_weak_network_is_led_away_from_and_sees_the_embedding():
    """x = x_weak + g (x_strong - x_weak); at scale 1 the weak one says nothing."""
    process, autoencoder = _parts()
    near, far = torch.zeros(1, LATENT), torch.full((1, LATENT), 0.2)
    heard: list[bool] = []

    class Weak(_Oracle):
        def forward(self, z_t: Tensor, t: Tensor, embedding: Tensor, drop_mask: Tensor) -> Tensor:
            heard.append(bool(drop_mask.any()))
            return super().forward(z_t, t, embedding, drop_mask)

    strong, weak = _Oracle(process, far), Weak(process, near)
    decoder = PictureDecoder(strong, process, autoencoder, weak=weak)
    for guidance in (1.0, 2.0):
        painted = decoder.sample(torch.zeros(2, DIM), [0, 1], steps=5, guidance=guidance)
        expected = to_bytes(autoencoder.decode(guidance * far))
        assert (painted.int() - expected.int()).abs().max() <= 1
    assert heard
    assert not any(heard)
