"""Networks independent of a run that judge its pictures: no part of the run was trained with them. `JUDGES` lists them by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import timm
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from corgi.clip.backbones import EFFICIENTNET_LITE1, efficientnet_state
from corgi.clip.towers import Tower
from corgi.feeding.pictures import square
from corgi.models.device import given_device, images_at_once
from corgi.names import JudgeName
from corgi.settings.errors import InputError


@dataclass(frozen=True)
class Judge:
    """A frozen timm network without its classifier; `architecture` is timm's name for it."""

    name: str
    architecture: str
    network: nn.Module
    side: int
    """Side of its input, px."""
    facts: Mapping[str, str]
    """What is owed to its authors."""

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n dim"]:
        """Return the pooled features of pictures, resized by their shorter side and cropped to the centre."""
        size = images_at_once(next(self.network.parameters()).device)
        batches = [self._batch(pictures[first : first + size]) for first in range(0, len(pictures), size)]
        return torch.cat(batches).cpu().numpy()

    def _batch(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "n dim"]:
        device = next(self.network.parameters()).device
        pixels = torch.stack([square(picture.convert("RGB"), self.side) for picture in pictures]).to(device)
        return self.network((pixels - 0.5) / 0.5).float()


def load_judge(name: JudgeName, towers: Sequence[Tower]) -> Judge:
    """Load a judge, on this process's GPU, else on the CPU.

    Raises:
        InputError: its package is not installed, or a tower of the run has its architecture.

    """
    judge = JUDGES[name]()
    for tower in towers:
        trunk = getattr(tower.model.get_submodule("visual"), "trunk", None)
        if getattr(trunk, "default_cfg", {}).get("architecture") == judge.architecture:
            raise InputError(
                f"evaluate.judge={name} is the network of tower {tower.name}, so it is not independent; tables are safe; name another judge or null"
            )
    judge.network.to(given_device())
    return judge


def _efficientnet_lite1() -> Judge:
    architecture = "tf_efficientnet_lite1"
    network = timm.create_model(architecture, pretrained=False, num_classes=0)
    network.load_state_dict(efficientnet_state(network, EFFICIENTNET_LITE1))
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Judge("EfficientNet-lite1", architecture, network, 128, EFFICIENTNET_LITE1.facts())


JUDGES: Mapping[JudgeName, Callable[[], Judge]] = {"efficientnet_lite1": _efficientnet_lite1}
"""The judges that a recipe can name."""
