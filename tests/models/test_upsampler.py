"""A step of the cascade: squares, noise of a known level, whole pictures of their own row, and several steps in turn."""

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.picture_decoder import PictureDecoder
from corgi.models.spatial_autoencoder import pixel_space
from corgi.models.unet import UNetSizes
from corgi.models.upsampler import Upsampler, cropped, enlarged, noised, shrunk, upsampled

LOW, SIDE, DIM = 4, 8, 5


class Enlarger(nn.Module):
    """An oracle that answers what leads to the enlarged picture it is given; notes the levels it is told."""

    def __init__(self, process: ShiftedDiffusion) -> None:
        super().__init__()
        self.process, self.levels = process, list[float]()

    def forward(
        self, z_t: Tensor, t: Tensor, embedding: Tensor, drop_mask: Tensor, low: Tensor, low_level: Tensor
    ) -> Tensor:
        self.levels += low_level.tolist()
        return from_x0(self.process, low, z_t, t, torch.zeros_like(t), "v")


def oracle(low: int, side: int, level: float = 0.0) -> Upsampler:
    dim = 3 * side**2
    process = ShiftedDiffusion(ShiftTable.ddpm(dim), Schedule.named("cosine_zero_snr", 50))
    return Upsampler(PictureDecoder(Enlarger(process), process, pixel_space(side)), low, level, 4, 1.0)


def learner() -> Upsampler:
    """A seeded network without attention."""
    torch.manual_seed(0)
    unet = UNetSizes((8, 16), attention=(), heads=2, middle_attention=False)
    sizes = NetworkSizes((3, SIDE, SIDE), width=16, depth=1, unet=unet, low_channels=3)
    network = NETWORKS["unet"](sizes, ShiftTable.ddpm(DIM)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    process = ShiftedDiffusion(ShiftTable.ddpm(3 * SIDE**2), Schedule.named("cosine_zero_snr", 50))
    return Upsampler(PictureDecoder(network, process, pixel_space(SIDE)), LOW, 0.04, 3, 2.0)  # pyright: ignore[reportArgumentType]


def some(count: int, side: int = LOW) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(1)).byte()


def test_a_crop_is_the_square_at_its_own_corner() -> None:
    pictures = torch.rand(3, 3, 9, 9)
    corner = torch.tensor([[0, 0], [5, 2], [3, 5]])
    found = cropped(pictures, corner, 4)
    for row, (top, left) in enumerate(corner.tolist()):
        assert torch.equal(found[row], pictures[row, :, top : top + 4, left : left + 4])


def test_law_noise_keeps_the_variance_and_no_share_changes_nothing() -> None:
    low, noise = torch.randn(2, 50_000), torch.randn(2, 50_000)
    found = noised(low, noise, torch.tensor([0.0, 0.3]))
    assert torch.equal(found[0], low[0])
    assert float(found[1].var()) == pytest.approx(1, abs=0.03)
    assert float((found[1] * low[1]).mean()) == pytest.approx(0.7**0.5, abs=0.03)


def test_shrinking_is_the_mean_of_smooth_pictures_and_enlarging_its_return() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    small = shrunk(ramp, 16)
    torch.testing.assert_close(small, ramp.unfold(3, 4, 4).mean(-1)[:, :, ::4], atol=0.02, rtol=0)
    torch.testing.assert_close(enlarged(small, 64), ramp, atol=0.03, rtol=0)


def test_law_an_oracle_ends_at_the_picture_it_was_given_enlarged_through_every_step() -> None:
    steps, small = [oracle(LOW, SIDE), oracle(SIDE, 4 * SIDE)], some(3)
    found = upsampled(steps, small, torch.zeros(3, DIM), range(3))
    expected = small.permute(0, 3, 1, 2).float() / 255
    for side in (SIDE, 4 * SIDE):
        expected = (enlarged(expected, side) * 255).round() / 255
    assert found.shape == (3, 4 * SIDE, 4 * SIDE, 3)
    assert (found.permute(0, 3, 1, 2).int() - (expected * 255).round().int()).abs().max() <= 2
    assert torch.equal(upsampled([], small, torch.zeros(3, DIM), range(3)), small)


def test_the_network_is_told_the_level_of_the_noise_it_sees() -> None:
    upsampler, small = oracle(LOW, SIDE, 0.25), torch.full((1, LOW, LOW, 3), 128, dtype=torch.uint8)
    found = upsampler.sample(small, torch.zeros(1, DIM), [5]).float() / 255
    network = upsampler.painter.network
    assert isinstance(network, Enlarger)
    assert set(network.levels) == {0.25}
    assert float((2 * found - 1).std()) == pytest.approx(0.5, abs=0.1)
    other = upsampler.sample(small, torch.zeros(1, DIM), [6])
    assert not torch.equal(found, other.float() / 255)


def test_a_row_depends_on_its_own_picture_embedding_and_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    upsampler, small = learner(), some(5)
    embedding, seeds = torch.randn(5, DIM), [3, 4, 5, 6, 7]
    together = upsampler.sample(small, embedding, seeds)
    alone = upsampler.sample(small[2:3], embedding[2:3], seeds[2:3])
    assert (together[2:3].int() - alone.int()).abs().max() <= 1
    monkeypatch.setattr("corgi.models.upsampler.PIXELS_AT_ONCE", 2 * SIDE**2)
    assert (upsampler.sample(small, embedding, seeds).int() - together.int()).abs().max() <= 1
    others = (
        (some(5).roll(1, 0), embedding, seeds),
        (small, embedding.roll(1, 0), seeds),
        (small, embedding, [*seeds[1:], 8]),
    )
    for changed in others:
        assert not torch.equal(upsampler.sample(*changed)[2], together[2])


def test_the_noise_of_every_step_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that began with the noise of the step before would have learned another relation of picture and noise."""
    asked: list[tuple[int, ...]] = []

    def spied(
        upsampler: Upsampler, pictures: Tensor, embedding: Tensor, seeds: list[int], watch: None
    ) -> Tensor:
        asked.append(tuple(seeds))
        return pictures

    monkeypatch.setattr(Upsampler, "sample", spied)
    upsampled([oracle(LOW, SIDE), oracle(SIDE, 2 * SIDE)], some(2), torch.zeros(2, DIM), [3, 4])
    assert len({*asked, (3, 4)}) == 3


def test_every_step_shows_what_it_expects_and_ends_at_what_it_paints() -> None:
    seen: list[tuple[int, Tensor]] = []
    steps = [oracle(LOW, SIDE), oracle(SIDE, 2 * SIDE)]
    painted = upsampled(
        steps,
        some(1),
        torch.zeros(1, DIM),
        [3],
        lambda painter: lambda latents: seen.append((painter.autoencoder.image_size, latents)),
    )
    assert [side for side, _ in seen] == 4 * [SIDE] + 4 * [2 * SIDE]
    last = steps[-1].painter.autoencoder.decode(seen[-1][1])
    assert torch.equal((last[0].permute(1, 2, 0) * 255).round().byte(), painted[0])
