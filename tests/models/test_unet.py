"""Laws of the spatial latent decoder."""

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.unet import LatentUNet, UNetConfig

SMALL = UNetConfig(channels=2, size=8, embedding_dim=4, widths=(16, 32), layers_per_block=1, groups=8)


def build(table: ShiftTable | None = None) -> LatentUNet:
    """A seeded small U-Net whose zero-initialised parts are given weights."""
    torch.manual_seed(0)
    model = LatentUNet(SMALL, table)
    for name in ("unet.conv_out.weight", "null_embedding"):
        nn.init.normal_(model.get_parameter(name), std=0.3)
    return model


def batch() -> dict[str, Tensor]:
    """Latents, times and embeddings."""
    generator = torch.Generator().manual_seed(1)
    latent, embedding = torch.randn(3, 2, 8, 8, generator=generator), torch.randn(3, 4, generator=generator)
    return {"latent": latent, "t": torch.tensor([1, 400, 1000]), "embedding": embedding}


def test_an_untrained_unet_predicts_zero() -> None:
    """v = 0, the best constant, in the shape of the latent."""
    answer = LatentUNet(SMALL)(**batch())
    assert answer.shape == (3, 2, 8, 8)
    assert not answer.any()


@pytest.mark.parametrize("name", ["latent", "t", "embedding"])
def test_every_input_reaches_the_output(name: str) -> None:
    """Changing any one input changes every answer."""
    model, inputs = build(), batch()
    value = inputs[name].flip(-1) if name == "latent" else inputs[name] + 1
    changed = model(**{**inputs, name: value}) - model(**inputs)
    assert bool((changed.abs().flatten(1).amax(dim=1) > 1e-4).all())


def test_dropped_embeddings_are_forgotten_and_kept_ones_are_not() -> None:
    """drop_mask replaces the embedding by the learned null, row by row."""
    model, inputs, drop = build(), batch(), torch.tensor([True, False, True])
    moved = {**inputs, "embedding": inputs["embedding"] + 1}
    first, second = model(**inputs, drop_mask=drop), model(**moved, drop_mask=drop)
    assert torch.equal(first[drop], second[drop])
    assert not torch.equal(first[~drop], second[~drop])
    torch.testing.assert_close(first[~drop], model(**inputs)[~drop])


def test_embeddings_are_standardised_and_the_state_dict_carries_the_table() -> None:
    """Table and raw embedding give what no table and the whitened embedding give."""
    table = ShiftTable.standardised(torch.tensor([3.0, -1.0, 0.0, 9.0]), torch.tensor([0.1, 2.0, 1.0, 0.5]))
    model, plain, inputs = build(table), build(), batch()
    raw = {**inputs, "embedding": table.unwhiten(inputs["embedding"], torch.zeros(3, dtype=torch.int64))}
    torch.testing.assert_close(model(**raw), plain(**inputs), rtol=1e-4, atol=1e-5)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(**raw), model(**raw))


@torch.no_grad()
def test_half_precision_answers_in_float32() -> None:
    """bf16 weights, fp32 answer, close to the fp32 network."""
    model, inputs = build(), batch()
    full = model(**inputs)
    half = model.bfloat16()(**inputs)
    assert half.dtype == torch.float32
    assert float((half - full).norm() / full.norm()) < 0.05


def test_bad_configurations_are_refused() -> None:
    """ValueError with what is wrong."""
    with pytest.raises(ValueError, match="multiples of groups"):
        UNetConfig(widths=(100,))
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        UNetConfig(size=30)
    with pytest.raises(ValueError, match="positive"):
        UNetConfig(widths=())
    with pytest.raises(ValueError, match="one cluster of dimension 4"):
        LatentUNet(SMALL, ShiftTable.ddpm(5))
