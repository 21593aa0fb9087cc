"""The diffusion transformer of the decoder: patches there and back, positions, blocks that start as the identity."""

import torch
from torch import nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.dit import ConditionedBlock, DiT, DiTSizes, from_patches, positions, to_patches


def test_patches_are_squares_row_by_row_and_come_back() -> None:
    picture = torch.arange(32.0).view(1, 2, 4, 4)
    patches = to_patches(picture, 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 1].tolist() == picture[0, :, :2, 2:].flatten().tolist()
    assert torch.equal(from_patches(patches, (2, 4, 4), 2), picture)


def test_every_position_is_its_own() -> None:
    table = positions(16, 4)
    assert table.shape == (16, 16)
    assert len(torch.unique(table.round(decimals=4), dim=0)) == 16


def test_an_untrained_block_is_the_identity() -> None:
    tokens = torch.randn(2, 5, 8)
    assert torch.equal(ConditionedBlock(8, 2)(tokens, torch.randn(2, 8)), tokens)


@torch.no_grad()
def test_a_patch_hears_all_others_and_knows_its_place() -> None:
    torch.manual_seed(0)
    network = DiT((2, 4, 4), DiTSizes(16, 1, 2, 2), ShiftTable.ddpm(4)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    rest = (torch.tensor([7]), torch.randn(1, 4), torch.tensor([False]))
    latent = torch.randn(1, 32)
    touched = latent.clone()
    touched[0, 0] += 1
    change = to_patches((network(touched, *rest) - network(latent, *rest)).view(1, 2, 4, 4), 2)
    assert bool((change.abs().amax(dim=2) > 0).all())
    flat = to_patches(network(torch.zeros(1, 32), *rest).view(1, 2, 4, 4), 2)[0]
    assert len(torch.unique(flat.round(decimals=4), dim=0)) == 4


def test_positions_are_made_again_and_not_stored() -> None:
    assert not any(
        "positions" in name for name in DiT((2, 4, 4), DiTSizes(16, 1, 2), ShiftTable.ddpm(4)).state_dict()
    )
