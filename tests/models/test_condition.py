"""What an image embedding becomes: a vector and tokens, or the learned null."""

import torch
from torch import nn

from corgi.models.condition import ImageCondition


def condition() -> ImageCondition:
    torch.manual_seed(0)
    made = ImageCondition(4, 8, (3, 6), knows_level=True)
    for null in (made.null_vector, made.null_tokens):
        nn.init.normal_(null)
    return made


@torch.no_grad()
def test_dropped_rows_get_the_learned_null_whatever_their_embedding_and_level() -> None:
    made, drop = condition(), torch.tensor([True, False])
    vector, tokens = made(torch.randn(2, 4), drop, torch.rand(2))
    assert tokens is not None
    assert vector.shape == (2, 8)
    assert tokens.shape == (2, 3, 6)
    assert torch.equal(vector[0], made.null_vector)
    assert torch.equal(tokens[0], made.null_tokens)
    assert not torch.equal(vector[1], made.null_vector)
    assert not torch.equal(tokens[1], made.null_tokens)


@torch.no_grad()
def test_the_null_is_not_the_mean_embedding() -> None:
    """A standardised mean is zero: what it gives and the null are learned apart."""
    made = condition()
    mean, _ = made(torch.zeros(1, 4), torch.tensor([False]))
    null, _ = made(torch.zeros(1, 4), torch.tensor([True]))
    assert not torch.allclose(mean, null)


def test_without_tokens_there_is_only_the_vector() -> None:
    made = ImageCondition(4, 8)
    assert made(torch.randn(2, 4), torch.tensor([True, False]))[1] is None
    assert {name.partition(".")[0] for name in made.state_dict()} == {"vector", "null_vector"}
