"""A small U-Net of Stable Diffusion's class, in a folder as save_pretrained writes it."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from corgi.names import UNetConfig


def stable_unet(channels: int = 3, **changes: Any) -> Any:
    """Return a seeded U-Net of two levels with attention on the first, for latents of 4 x 4."""
    torch.manual_seed(3)
    values: dict[str, Any] = {
        "sample_size": 4,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        **changes,
    }
    return UNet2DConditionModel(**values)


def stable_config(unet: Any) -> UNetConfig:
    """Return what config.json of a U-Net's folder holds."""
    return json.loads(unet.to_json_string())


def stable_unet_folder(folder: Path, channels: int = 3, **changes: Any) -> Path:
    """Write the folder."""
    stable_unet(channels, **changes).save_pretrained(folder)
    return folder
