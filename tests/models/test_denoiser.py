"""Laws of the flat latent decoder."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.loss import from_x0, to_x0
from corgi.diffusion.samplers import ddim, philox_noise
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.denoiser import DenoiserConfig, LatentDenoiser, perturb_embedding

SMALL: dict[str, Any] = {"latent_dim": 5, "embedding_dim": 4, "width": 32, "depth": 2}
T = torch.tensor([1, 400, 1000])


def build(table: ShiftTable | None = None, **more: Any) -> LatentDenoiser:
    """A seeded small denoiser whose zero-initialised layers are given weights."""
    torch.manual_seed(0)
    model = LatentDenoiser(DenoiserConfig(**{**SMALL, **more}), table)
    for name, parameter in model.named_parameters():
        if "modulation" in name or name in ("output.weight", "null_embedding"):
            nn.init.normal_(parameter, std=0.3)
    return model


def batch() -> dict[str, Tensor]:
    """Latents, times and embeddings."""
    generator = torch.Generator().manual_seed(1)
    return {
        "latent": torch.randn(3, 5, generator=generator),
        "t": T,
        "embedding": torch.randn(3, 4, generator=generator),
    }


def test_the_default_is_the_size_of_the_demo() -> None:
    """About 13 M parameters: width 640, 4 blocks, 384 latents."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in LatentDenoiser(DenoiserConfig()).parameters())
    assert 10e6 < count < 14e6


def test_an_untrained_denoiser_predicts_zero() -> None:
    """v = 0, the best constant."""
    assert not LatentDenoiser(DenoiserConfig(**SMALL))(**batch()).any()


@pytest.mark.parametrize("name", ["latent", "t", "embedding"])
def test_every_input_reaches_the_output(name: str) -> None:
    """Changing any one input changes every answer."""
    model, inputs = build(), batch()
    changed = model(**{**inputs, name: inputs[name] + 1})
    assert bool(((changed - model(**inputs)).abs().amax(dim=1) > 1e-4).all())


def test_dropped_embeddings_are_forgotten_and_kept_ones_are_not() -> None:
    """drop_mask replaces the embedding by the learned null, row by row."""
    model, inputs, drop = build(), batch(), torch.tensor([True, False, True])
    other = {**inputs, "embedding": inputs["embedding"] + 1}
    first, second = model(**inputs, drop_mask=drop), model(**other, drop_mask=drop)
    assert torch.equal(first[drop], second[drop])
    assert not torch.equal(first[~drop], second[~drop])
    torch.testing.assert_close(first[~drop], model(**inputs)[~drop])


def test_embeddings_are_standardised_by_the_table_inside() -> None:
    """Table and raw embedding give what no table and the whitened embedding give; the state dict carries it."""
    table = ShiftTable.standardised(torch.tensor([3.0, -1.0, 0.0, 9.0]), torch.tensor([0.1, 2.0, 1.0, 0.5]))
    model, plain, inputs = build(table), build(), batch()
    row = torch.zeros(3, dtype=torch.int64)
    raw = {**inputs, "embedding": table.unwhiten(inputs["embedding"], row)}
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


def test_law_24_answers_do_not_depend_on_the_batch() -> None:
    """Each row alone gives what it gives among others."""
    model, inputs = build(), batch()
    together = model(**inputs)
    for i in range(3):
        alone = model(**{name: value[i : i + 1] for name, value in inputs.items()})
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


def test_perturbed_embeddings_eq_17_keep_the_law_of_the_data() -> None:
    """Data N(mu, Sigma) stays N(mu, Sigma) at every level; level 0 is the identity, 1 forgets the embedding."""
    table = ShiftTable(torch.tensor([[3.0, -1.0, 0.0, 9.0]]), torch.tensor([[0.1, 2.0, 1.0, 0.5]]))
    noise = philox_noise(range(4000), 4)
    z = table.unwhiten(noise(0), torch.zeros(4000, dtype=torch.int64))
    assert torch.allclose(perturb_embedding(z, noise(1), torch.zeros(4000), table), z)
    half = perturb_embedding(z, noise(1), torch.full((4000,), 0.4), table)
    torch.testing.assert_close(half.mean(0), table.mean[0], rtol=0.05, atol=0.1)
    torch.testing.assert_close(half.std(0), table.scale[0], rtol=0.05, atol=0)
    gone = perturb_embedding(z, noise(1), torch.ones(4000), table)
    assert torch.equal(gone, perturb_embedding(z + 1, noise(1), torch.ones(4000), table))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
def test_the_denoiser_learns_to_draw_the_latent_of_an_embedding() -> None:
    """v-training on latent = linear map of the embedding; DDIM samples then have correlation > 0.9 with it."""
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(5, 4)).Q.mT * 5**0.5 / 2
    process = ShiftedDiffusion(ShiftTable.ddpm(5), Schedule.named("cosine_zero_snr"))
    model = LatentDenoiser(DenoiserConfig(**SMALL))
    optimizer, cluster = torch.optim.AdamW(model.parameters(), 3e-3), torch.zeros(128, dtype=torch.int64)
    for _ in range(300):
        embedding, t = torch.randn(128, 4), torch.randint(1, 1001, (128,))
        z_0 = embedding @ mix
        z_t = process.q_sample(z_0, t, torch.randn(128, 5), cluster)
        v = from_x0(process, z_0, z_t, t, cluster, "v")
        loss = (model(z_t, t, embedding, torch.rand(128) < 0.1) - v).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    embedding = torch.randn(128, 4)

    @torch.no_grad()
    def denoise(z_t: Tensor, t: Tensor, cluster: Tensor) -> Tensor:
        return to_x0(process, model(z_t, t, embedding), z_t, t, cluster, "v")

    sample = ddim(denoise, process, cluster, philox_noise(range(128), 5), 20)
    assert float(torch.nn.functional.cosine_similarity(sample, embedding @ mix).mean()) > 0.9


def test_bad_configurations_are_refused() -> None:
    """ValueError with what is wrong."""
    with pytest.raises(ValueError, match="even"):
        DenoiserConfig(width=33)
    with pytest.raises(ValueError, match="positive"):
        DenoiserConfig(depth=0)
    with pytest.raises(ValueError, match="one cluster of dimension 4"):
        LatentDenoiser(DenoiserConfig(**SMALL), ShiftTable.ddpm(5))
