"""Autoencoders of diffusers, from folders that save_pretrained wrote: each class is read, whatever does not fit is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel

from corgi.latents.pretrained import read_pretrained
from corgi.models.pretrained_codec import CLASSES, untrained
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.settings.errors import InputError
from corgi.settings.models import PretrainedSettings

pytestmark = pytest.mark.slow

SIDE = 16
BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
}
MODELS: dict[str, Any] = {
    "AutoencoderKL": lambda: AutoencoderKL(**BLOCKS, latent_channels=2, scaling_factor=0.3, shift_factor=0.1),
    "VQModel": lambda: VQModel(**BLOCKS, latent_channels=2, num_vq_embeddings=16, scaling_factor=0.3),
    "AutoencoderTiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=2,
        scaling_factor=0.3,
    ),
    "AutoencoderDC": lambda: AutoencoderDC(
        latent_channels=2,
        attention_head_dim=8,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.3,
    ),
}


def folder_of(path: Path, name: str) -> PretrainedSettings:
    """Write a small model's folder."""
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(path)
    return PretrainedSettings(path=str(path))


def changed(path: Path, **values: Any) -> None:
    """Change config.json; None removes a value."""
    config = {**json.loads((path / "config.json").read_text()), **values}
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refused(settings: PretrainedSettings, side: int = SIDE) -> str:
    with pytest.raises(InputError) as caught:
        read_pretrained(settings, side)
    line = str(caught.value)
    assert "\n" not in line
    assert line.count("; ") >= 2
    return line


def test_every_class_has_a_folder_here() -> None:
    assert set(MODELS) == set(CLASSES)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_latents_are_scaled_as_the_folder_says_and_the_config_rebuilds_the_model(
    tmp_path: Path, name: str
) -> None:
    codec, config = read_pretrained(folder_of(tmp_path, name), SIDE)
    pictures = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert codec.latent_shape(SIDE) == (2, SIDE // 2, SIDE // 2)
    latents = codec.encode(pictures)
    model: Any = CLASSES[name].from_pretrained(tmp_path).eval()
    found = model.encode(2 * pictures - 1)
    raw = next(
        value
        for value in (
            getattr(found, "latents", None),
            getattr(found, "latent", None),
            found.latent_dist.mean if hasattr(found, "latent_dist") else None,
        )
        if value is not None
    )
    shift = 0.1 if name == "AutoencoderKL" else 0
    torch.testing.assert_close(latents, (raw - shift) * 0.3)
    torch.testing.assert_close(codec.decode(latents), (model.decode(raw).sample + 1) / 2)
    space = SpatialAutoencoder(codec, SIDE)
    space.measure([pictures])
    rebuilt = SpatialAutoencoder(untrained(json.loads(json.dumps(config))), SIDE)
    rebuilt.load_state_dict(space.state_dict())
    assert torch.equal(rebuilt.encode(pictures), space.encode(pictures))


def test_an_autoencoder_inside_a_pipelines_folder_is_named_by_its_subfolder(tmp_path: Path) -> None:
    folder_of(tmp_path / "vae", "AutoencoderKL")
    codec, _ = read_pretrained(PretrainedSettings(path=str(tmp_path), subfolder="vae"), SIDE)
    assert codec.kind == "AutoencoderKL"


@pytest.mark.parametrize("name", MODELS)
def test_a_missing_scaling_factor_is_refused(tmp_path: Path, name: str) -> None:
    """diffusers would take its default, which is that of another model."""
    settings = folder_of(tmp_path, name)
    changed(tmp_path, scaling_factor=None)
    assert "no scaling_factor" in refused(settings)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"_class_name": "UNet2DModel"}, "UNet2DModel, not one of"),
        ({"_class_name": None}, "not one of"),
        ({"in_channels": 4}, "4 channels, but pictures have 3"),
        ({"out_channels": 1}, "1 channels, but pictures have 3"),
        ({"latent_channels": 3}, "weights of AutoencoderKL"),
    ],
)
def test_another_model_and_other_channels_are_refused(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    settings = folder_of(tmp_path, "AutoencoderKL")
    changed(tmp_path, **values)
    assert said in refused(settings)


def test_a_side_that_the_model_does_not_give_back_is_refused(tmp_path: Path) -> None:
    assert "image_size=15" in refused(folder_of(tmp_path, "AutoencoderKL"), 15)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "no config.json" in refused(PretrainedSettings(path=str(tmp_path / "nothing")))
    settings = folder_of(tmp_path / "cut", "AutoencoderKL")
    for file in (tmp_path / "cut").glob("*.safetensors"):
        file.unlink()
    assert "cannot be read" in refused(settings)
