"""Blocks: what they see, what they keep, where they stand."""

import pytest
import torch

from corgi.models.transformer import Block, View, packed_mask, rotary_angles, rotate


def block(width: int = 32, heads: int = 4) -> Block:
    """A seeded block."""
    torch.manual_seed(0)
    return Block(width, heads)


@pytest.mark.parametrize("causal", [True, False])
def test_causal_blocks_do_not_look_ahead(causal: bool) -> None:
    """Changing the last token changes earlier outputs only without the causal mask."""
    layer, view = block(), View(causal=causal)
    tokens = torch.randn(2, 5, 32)
    changed = tokens.clone()
    changed[:, -1] += 1
    same = torch.equal(layer(tokens, view)[0][:, :-1], layer(changed, view)[0][:, :-1])
    assert same == causal
    assert not torch.equal(layer(tokens, view)[0][:, -1], layer(changed, view)[0][:, -1])


def test_kept_keys_and_values_replace_the_tokens_before() -> None:
    """The second half with the first half's memory is the second half of the whole."""
    layer, tokens = block(), torch.randn(2, 6, 32)
    whole, _ = layer(tokens, View(causal=True))
    first, memory = layer(tokens[:, :4], View(causal=True))
    allowed = packed_mask(4, 2, 1, tokens.device)[4:]
    second, _ = layer(tokens[:, 4:], View(allowed), memory)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.memory(tokens[:, :4], View()).key, memory.key)


def test_only_wanted_tokens_are_computed() -> None:
    """They equal those of the whole."""
    layer, tokens = block(), torch.randn(2, 6, 32)
    wanted, allowed = torch.tensor([5, 2]), packed_mask(6, 1, 0, tokens.device)
    got, _ = layer(tokens, View(allowed[wanted], wanted=wanted))
    torch.testing.assert_close(got, layer(tokens, View(causal=True))[0][:, wanted], rtol=1e-5, atol=1e-6)


def test_the_packed_mask_separates_noise_levels() -> None:
    """Two levels of two tokens after a caption of two, written out."""
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [1, 1, 0, 0, 1, 1],
        ]
    ).bool()
    assert torch.equal(packed_mask(2, 2, 2, torch.device("cpu")), expected)


def test_rotary_scores_depend_on_distances_alone() -> None:
    """Moving all positions by 7 changes no score; norms stay."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 3, 5, 8, dtype=torch.float64)
    place = torch.tensor([0, 1, 2, 6, 9])
    scores = [
        rotate(query, angles.double()) @ rotate(key, angles.double()).mT
        for angles in (rotary_angles(place, 8), rotary_angles(place + 7, 8))
    ]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)
    turned = rotate(query, rotary_angles(place, 8).double())
    torch.testing.assert_close(turned.norm(dim=-1), query.norm(dim=-1))
    assert not torch.equal(turned[:, :, 1:], query[:, :, 1:])
    assert rotate(query, None) is query
