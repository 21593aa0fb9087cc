"""Every registered network of the decoder: built by name, called as the painter calls it, its table in its state."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.autoencoder import LinearAutoencoder
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.picture_decoder import Denoiser, PictureDecoder
from corgi.models.unet import UNetSizes
from corgi.names import NetworkName

SHAPE = (2, 4, 4)
LATENT = math.prod(SHAPE)
SIZES = NetworkSizes(
    SHAPE, width=16, depth=1, unet=UNetSizes(widths=(8, 16), heads=2, tokens=3), heads=2, knows_level=True
)
T = torch.tensor([1, 500, 1000])


def build(name: NetworkName, trained: bool = True) -> nn.Module:
    """A seeded small network; trained, its layers that start at zero have weights."""
    torch.manual_seed(0)
    table = ShiftTable.standardised(torch.randn(4), torch.rand(4) + 0.5)
    network = NETWORKS[name](SIZES, table).eval()
    if trained:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return network


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn(3, LATENT, generator=generator),
        "t": T,
        "embedding": torch.randn(3, 4, generator=generator),
        "drop_mask": torch.tensor([True, False, False]),
    }


def test_settings_offer_the_networks_that_are_registered() -> None:
    assert tuple(NETWORKS) == get_args(NetworkName)


@pytest.mark.law
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_law_every_network_answers_row_by_row_and_forgets_a_dropped_embedding(name: NetworkName) -> None:
    network, given = build(name), inputs()
    assert isinstance(network, Denoiser)
    answer = network(**given)
    assert answer.shape == given["latent"].shape
    for row in range(3):
        alone = network(**{key: value[row : row + 1] for key, value in given.items()})
        torch.testing.assert_close(alone, answer[row : row + 1], rtol=1e-4, atol=1e-5)
    other = network(**{**given, "embedding": given["embedding"] + 1})
    changed = (other - answer).abs().amax(dim=1) > 1e-4
    assert changed.tolist() == [False, True, True]


@pytest.mark.law
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_law_every_untrained_network_predicts_zero(name: NetworkName) -> None:
    """The best constant, whatever the prediction stands for."""
    assert not build(name, trained=False)(**inputs()).any()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_level_of_noise_is_heard_unless_the_embedding_is_dropped(name: NetworkName) -> None:
    """No level is level 0."""
    network, given = build(name), inputs()
    silent, none, half = (
        network(**given, level=level) for level in (None, torch.zeros(3), torch.full((3,), 0.5))
    )
    assert torch.equal(silent, none)
    assert ((half - none).abs().amax(dim=1) > 1e-4).tolist() == [False, True, True]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_learns(name: NetworkName) -> None:
    """After the first steps from zero no parameter is left without a gradient."""
    network, given = build(name, trained=False).train(), inputs()
    optimizer, target = torch.optim.SGD(network.parameters(), 0.1), torch.randn(3, LATENT)
    for _ in range(3):
        optimizer.zero_grad()
        loss = (network(**given, level=torch.rand(3)) - target).square().mean()
        loss.backward()
        optimizer.step()
    silent = [key for key, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_embeddings_are_standardised_by_the_table_inside_which_is_in_the_state(name: NetworkName) -> None:
    network, given = build(name), inputs()
    held = ShiftTable.from_state(
        {key: value for key, value in network.get_submodule("embedding_table").state_dict().items()}
    )
    plain = NETWORKS[name](SIZES, ShiftTable.ddpm(4)).eval()
    plain.load_state_dict({**network.state_dict(), **_prefixed(ShiftTable.ddpm(4))})
    whitened = {**given, "embedding": held.whiten(given["embedding"], torch.zeros(3, dtype=torch.int64))}
    torch.testing.assert_close(plain(**whitened), network(**given), rtol=1e-4, atol=1e-5)
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain(**given), network(**given))


def _prefixed(table: ShiftTable) -> dict[str, Tensor]:
    return {f"embedding_table.{key}": value for key, value in table.state_dict().items()}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_half_precision_answers_in_float32(name: NetworkName) -> None:
    """bf16 weights, fp32 answer, close to the fp32 network."""
    network, given = build(name), inputs()
    full = network(**given)
    half = network.bfloat16()(**given)
    assert half.dtype == torch.float32
    assert float((half - full).norm() / full.norm()) < 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_paints_one_picture_whatever_its_batch(name: NetworkName) -> None:
    torch.manual_seed(0)
    components = torch.linalg.qr(torch.randn(3 * 16, LATENT)).Q.mT
    autoencoder = LinearAutoencoder(torch.full((48,), 0.5), components, torch.full((LATENT,), 0.2))
    network = build(name)
    assert isinstance(network, Denoiser)
    process = ShiftedDiffusion(ShiftTable.ddpm(LATENT), Schedule.named("cosine_zero_snr", 50))
    decoder, embedding = PictureDecoder(network, process, autoencoder), torch.randn(70, 4)
    together = decoder.sample(embedding, range(70), steps=3, guidance=3.0)
    for row in (0, 40, 69):
        alone = decoder.sample(embedding[row : row + 1], [row], steps=3, guidance=3.0)
        assert (together[row].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("name", ["unet", "dit"])
@pytest.mark.parametrize("shape", [(32,), (2, 3, 3), (2, 4, 3)])
def test_a_latent_that_does_not_fit_is_refused(name: NetworkName, shape: tuple[int, ...]) -> None:
    sizes = NetworkSizes(shape, width=16, depth=1, unet=SIZES.unet, heads=2)
    with pytest.raises(ValueError, match=r"latent of shape"):
        NETWORKS[name](sizes, ShiftTable.ddpm(4))


@pytest.mark.parametrize("name", ["unet", "dit"])
@torch.no_grad()
def test_a_smaller_picture_and_its_noise_are_always_seen(name: NetworkName) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](replace(SIZES, low_channels=2), ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    given, low = inputs(), torch.randn(3, LATENT)
    answer = network(**given, low=low)
    for other in ({"low": low + 1}, {"low": low, "low_level": torch.full((3,), 0.5)}):
        changed = (network(**given, **other) - answer).abs().amax(dim=1) > 1e-4
        assert changed.tolist() == [True, True, True]


def test_the_flat_network_reads_no_planes() -> None:
    for asked, words in (
        ({"low_channels": 2}, "not read a smaller picture"),
        ({"regression": True}, "not read a predicted"),
    ):
        with pytest.raises(ValueError, match=words):
            NETWORKS["mlp"](replace(SIZES, **asked), ShiftTable.ddpm(4))


@pytest.mark.parametrize("name", ["unet", "dit"])
@torch.no_grad()
def test_the_predicted_latent_alone_tells_the_embedding_unless_it_is_dropped(name: NetworkName) -> None:
    """It has no trained numbers, and without its fit the network answers not a number."""
    torch.manual_seed(0)
    network = NETWORKS[name](replace(SIZES, regression=True), ShiftTable.ddpm(4)).eval()
    fitted = {"regression.weight", "regression.bias"}
    assert set(network.state_dict()) - set(build(name).state_dict()) == fitted
    assert not fitted & {key for key, _ in network.named_parameters()}
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    given = inputs()
    assert network(**given).isnan().all()
    network.get_submodule("regression").load_state_dict(
        {"weight": torch.randn(LATENT, 4), "bias": torch.randn(LATENT)}
    )
    for silenced in ("condition.vector", "condition.tokens"):
        if silenced + ".weight" in network.state_dict():
            network.get_submodule(silenced).get_parameter("weight").zero_()
    change = network(**{**given, "embedding": given["embedding"] + 1}) - network(**given)
    assert (change.abs().amax(dim=1) > 1e-4).tolist() == [False, True, True]


@torch.no_grad()
def test_a_unet_without_attention_takes_planes_of_any_side() -> None:
    """Its weights do not depend on the side; with attention they would not either, but it was trained on fewer tokens."""
    torch.manual_seed(0)
    sizes = replace(SIZES, unet=UNetSizes((8, 16), attention=(), heads=2, middle_attention=False))
    networks = [
        NETWORKS["unet"](replace(sizes, latent_shape=(2, side, side)), ShiftTable.ddpm(4)) for side in (4, 8)
    ]
    assert not any("attentions" in key for key in networks[0].state_dict())
    networks[1].load_state_dict(networks[0].state_dict())
    rest = {name: value for name, value in inputs().items() if name != "latent"}
    assert networks[1].eval()(torch.randn(3, 128), **rest).shape == (3, 128)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_neighbours_are_seen_unless_the_embedding_is_dropped(name: NetworkName) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](replace(SIZES, neighbours=2), ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    given, neighbours = inputs(), torch.randn(3, 2, LATENT)
    answer, other = network(**given, neighbours=neighbours), network(**given, neighbours=neighbours + 1)
    assert ((other - answer).abs().amax(dim=1) > 1e-4).tolist() == [False, True, True]
    order = network(**given, neighbours=neighbours.flip(1))
    assert not torch.equal(order[1:], answer[1:])


def reader() -> nn.Module:
    """A U-Net that reads two words of five numbers."""
    torch.manual_seed(0)
    network = NETWORKS["unet"](replace(SIZES, words=(2, 5)), ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.law
@torch.no_grad()
def test_law_words_are_heard_and_padding_is_a_dropped_caption_is_none() -> None:
    """Also where the embedding is dropped: the two have a null each."""
    network, given, words = reader(), inputs(), torch.randn(3, 2, 5)
    heard, silent = network(**given, words=words), network(**given)
    assert ((heard - silent).abs().amax(dim=1) > 1e-4).tolist() == [True, True, True]
    other = network(**given, words=words + 1)
    assert ((heard - other).abs().amax(dim=1) > 1e-4).tolist() == [True, True, True]
    assert torch.equal(network(**given, words=torch.zeros(3, 2, 5)), silent)
    some = network(**given, words=words, drop_words=torch.tensor([True, False, True]))
    torch.testing.assert_close(some, torch.stack([silent[0], heard[1], silent[2]]), rtol=1e-4, atol=1e-5)
    cut = words.clone()
    cut[:, 1] = 0
    for row in range(3):
        shorter = (network(**given, words=cut) - heard)[row].abs().max()
        assert float(shorter) > 1e-4


@torch.no_grad()
def test_the_painters_network_without_embedding_sees_no_caption_either() -> None:
    """Guidance leads away from what is painted of nothing; each row is painted with both and with neither in one call."""
    seen: list[list[tuple[bool, bool]]] = []
    network = reader()

    class Spy(nn.Module):
        def forward(self, z: Tensor, t: Tensor, embedding: Tensor, drop: Tensor, **told: Tensor) -> Tensor:
            seen.append(list(zip(drop.tolist(), told["drop_words"].tolist(), strict=True)))
            return network(z, t, embedding, drop, **told)

    autoencoder = LinearAutoencoder(
        torch.full((48,), 0.5), torch.eye(48)[:LATENT], torch.full((LATENT,), 0.2)
    )
    process = ShiftedDiffusion(ShiftTable.ddpm(LATENT), Schedule.named("cosine_zero_snr", 50))
    spy = Spy()
    assert isinstance(spy, Denoiser)
    decoder, words = PictureDecoder(spy, process, autoencoder), torch.randn(70, 2, 5)
    embedding = torch.randn(70, 4)
    together = decoder.sample(embedding, range(70), steps=2, guidance=2.0, words=words)
    assert [len(rows) for rows in seen] == [128, 128, 12, 12]
    for rows in seen:
        half = len(rows) // 2
        assert rows == [(False, False)] * half + [(True, True)] * half
    alone = decoder.sample(embedding[69:], [69], steps=2, guidance=2.0, words=words[69:])
    assert (together[69].int() - alone[0].int()).abs().max() <= 1
    other = decoder.sample(embedding[69:], [69], steps=2, guidance=2.0, words=words[:1])
    assert not torch.equal(other, alone)
