"""A decoder as diffusers' KandinskyV22Pipeline: it paints where corgi cannot be imported and no code is trusted, and paints the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import corgi
from corgi.diffusion.samplers import philox_noise
from corgi.diffusion.shifted import ShiftTable
from corgi.inference.export_stock import affine_of, export_stock, stock_unet
from corgi.inference.generate import Generator
from corgi.models.kandinsky_unet import KandinskyUNet
from corgi.models.unet import UNetSizes
from corgi.settings.errors import InputError
from tests.support.painting_run import filled, painting_run
from tests.support.strangers import Strangers

VQ: dict[str, Any] = {
    "_class_name": "VQModel",
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 8],
    "norm_num_groups": 4,
    "latent_channels": 4,
    "num_vq_embeddings": 16,
    "scaling_factor": 0.3,
    "quantise": False,
}
SIZES: dict[str, Any] = {"widths": (16, 32), "heads": 2, "kandinsky": True}
DECODER: dict[str, Any] = {"network": "unet", "unet": SIZES, "sample_steps": 5}
TRAILING = [20, 40, 60, 80, 100]
"""The timesteps of 5 that diffusers visits of the run's 100, counted from 1."""
STRANGER = """
import sys
import numpy as np, torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
folder, given = sys.argv[1], load_file(sys.argv[2])
pipeline = DiffusionPipeline.from_pretrained(folder)
assert type(pipeline).__name__ == "KandinskyV22Pipeline"
pipeline.set_progress_bar_config(disable=True)
null = load_file(folder + "/null_image_embeds.safetensors")["negative_image_embeds"].repeat(2, 1)
for guidance in (1.0, 3.0):
    images = pipeline(given["embedding"], null, height=16, width=16, num_inference_steps=5, guidance_scale=guidance,
                      latents=given["noise"].clone(), output_type="np").images
    np.save(f"{folder}/{guidance:g}.npy", images)
"""


def pixels(generator: Generator, embedding: Tensor, seeds: list[int], guidance: float) -> np.ndarray:
    """Return what the run paints in 0..1, before it is rounded to bytes."""
    seen: list[Tensor] = []
    generator.decoder.sample(embedding, seeds, TRAILING, guidance, seen.append)
    return generator.decoder.autoencoder.decode(seen[-1]).permute(0, 2, 3, 1).detach().numpy()


@pytest.mark.slow
def test_law_diffusers_own_classes_paint_what_the_run_paints(strangers: Strangers, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    run = painting_run(tmp_path / "run", decoder=DECODER, vq=VQ)
    folder = export_stock(run.folder, tmp_path / "stock")
    assert not [path for path in folder.rglob("*") if path.suffix in (".py", ".bin", ".pt", ".pkl")]
    generator = corgi.load(run.folder)
    dim = generator.decoder.network.embedding_table.dim  # pyright: ignore[reportAttributeAccessIssue]
    embedding = torch.nn.functional.normalize(torch.randn(2, dim), dim=-1)
    noise = philox_noise([5, 6], generator.decoder.process.table.dim)(0)
    shape = generator.decoder.autoencoder.latent_shape
    save_file(
        {"embedding": embedding, "noise": noise.view(2, *shape).contiguous()}, tmp_path / "given.safetensors"
    )
    strangers.run(STRANGER, tmp_path, folder, tmp_path / "given.safetensors")
    for guidance in (1.0, 3.0):
        expected, found = (
            pixels(generator, embedding, [5, 6], guidance),
            np.load(folder / f"{guidance:g}.npy"),
        )
        assert expected.std() > 0.01
        assert np.abs(found - expected).max() <= 1e-4
    index = json.loads((folder / "model_index.json").read_text())
    assert {index[part][0] for part in ("unet", "movq", "scheduler")} == {"diffusers"}


def test_law_the_folded_network_answers_raw_embeddings_and_its_null_as_the_run_does() -> None:
    """With a null that training moved away from zero, and a table that shifts and scales."""
    torch.manual_seed(0)
    table = ShiftTable.standardised(torch.randn(12) * 0.2, torch.rand(12) + 0.1)
    network = filled(KandinskyUNet((4, 8, 8), UNetSizes((16, 32), heads=2), table)).eval()
    torch.nn.init.normal_(network.null_embedding)  # pyright: ignore[reportArgumentType]
    unet, null = stock_unet(network)  # pyright: ignore[reportArgumentType]
    latent, z, t = torch.randn(3, 256), torch.randn(3, 12), torch.tensor([1, 40, 1000])
    for dropped, seen in ((False, z), (True, null.repeat(3, 1))):
        with torch.no_grad():
            expected = network(latent, t, z, torch.full((3,), dropped))
            found = unet(
                latent.view(3, 4, 8, 8), t - 1, None, added_cond_kwargs={"image_embeds": seen}
            ).sample
        assert found.shape == (3, 8, 8, 8)
        torch.testing.assert_close(found[:, :4].flatten(1), expected, atol=1e-4, rtol=1e-4)
        assert not found[:, 4:].any()
    scale, shift = affine_of(table)
    torch.testing.assert_close(
        z * scale + shift, table.whiten(z, torch.zeros(3, dtype=torch.int64)), atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "vq", "words"),
    [
        (
            {"network": "unet", "unet": {"widths": (16, 32), "heads": 2}},
            None,
            "decoder is not of a class of diffusers",
        ),
        (DECODER, None, "is not a VQModel"),
        (DECODER, {**VQ, "quantise": True}, "without quantising"),
        ({**DECODER, "guidance_interval": (0.1, 0.9)}, VQ, "no guidance interval"),
        ({**DECODER, "weak": {}}, VQ, "no cascade and no autoguidance"),
    ],
)
def test_what_no_stock_class_paints_is_one_line(
    tmp_path: Path, decoder: dict[str, Any], vq: dict[str, Any] | None, words: str
) -> None:
    run = painting_run(tmp_path / "run", decoder=decoder, vq=vq)
    with pytest.raises(InputError, match=words) as caught:
        export_stock(run.folder, tmp_path / "stock")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "stock").exists()
