"""Untrained CLIP towers that are built in a moment: a transformer and a convolutional one of timm."""

import json
from pathlib import Path
from typing import Any, Literal

from corgi.settings.clip import TowerRef

VISION: dict[str, dict[str, Any]] = {
    "transformer": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "timm": {"timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 32},
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def tiny_tower(folder: Path, kind: Literal["transformer", "timm"]) -> TowerRef:
    """Write the config of a tower and return what names it."""
    config = folder / f"{kind}.json"
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": VISION[kind], "text_cfg": TEXT}))
    return TowerRef(name=kind, model=f"tiny-{kind}", pretrained="random", config=str(config))
