"""Every registered network of the decoder: built by name, called as the painter calls it, its table in its state."""

from typing import get_args

import pytest
import torch

from corgi.diffusion.shifted import ShiftTable
from corgi.models.networks import NETWORKS, NetworkSizes
from corgi.models.picture_decoder import Denoiser
from corgi.names import NetworkName


def test_settings_offer_the_networks_that_are_registered() -> None:
    assert tuple(NETWORKS) == get_args(NetworkName)


@pytest.mark.law
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_law_every_network_answers_row_by_row_and_forgets_a_dropped_embedding(name: NetworkName) -> None:
    torch.manual_seed(0)
    table = ShiftTable.standardised(torch.randn(4), torch.rand(4) + 0.5)
    network = NETWORKS[name](NetworkSizes(latent_shape=(2, 1, 3), width=16, depth=1), table)
    for parameter in network.parameters():  # answers start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    assert isinstance(network, Denoiser)
    assert torch.equal(network.state_dict()["embedding_table.mean"], table.mean)
    latent, t, embedding = torch.randn(3, 6), torch.tensor([1, 500, 1000]), torch.randn(3, 4)
    drop = torch.tensor([True, False, False])
    answer = network(latent, t, embedding, drop)
    assert answer.shape == latent.shape
    torch.testing.assert_close(network(latent[1:2], t[1:2], embedding[1:2], drop[1:2]), answer[1:2])
    other = network(latent, t, embedding + 1, drop)
    assert [bool(torch.equal(a, b)) for a, b in zip(answer, other, strict=True)] == [True, False, False]
