"""The network of FID and KID, Inception of 2015-12-05 as torch-fidelity ships it, with weights from a given file only."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from corgi.models.device import given_device
from corgi.settings.errors import InputError
from corgi.storage.files import sha256_of_file

FEATURES = "2048"
"""The pooled features before the last layer: pool3 of the original."""
BATCH = 32
RESIZE = "299 px by TensorFlow 1's bilinear filter as torch-fidelity has it, antialias=False"


@dataclass(frozen=True)
class Inception:
    """The network with a file's weights; `facts` are printed beside every figure made with it."""

    network: Any
    facts: dict[str, str]

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n dim"]:
        """Return the pooled features of RGB pictures, resized by the network itself."""
        found = [self._batch(pictures[first : first + BATCH]) for first in range(0, len(pictures), BATCH)]
        return torch.cat(found).double().cpu().numpy()

    def _batch(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "n dim"]:
        device = next(self.network.parameters()).device
        if len({picture.size for picture in pictures}) > 1:
            return torch.cat([self._batch([picture]) for picture in pictures])
        return self.network(bytes_of(pictures).to(device))[0]


def bytes_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Return pictures of one size as bytes [n, 3, height, width], red first."""
    rows = [np.asarray(picture.convert("RGB")) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def load_inception(path: str | Path, sha256: str | None = None) -> Inception:
    """Return the network with the weights of a file, on the GPU this process was given, else on the CPU.

    Raises:
        InputError: torch-fidelity is not installed, or the file is absent, has another sha256 than expected, or holds no
            weights of this network. Nothing is downloaded.

    """
    if not Path(path).is_file():
        raise InputError(
            f"{path} is no file of Inception weights; nothing was scored; name one, nothing is downloaded"
        )
    found = sha256_of_file(Path(path))
    if sha256 is not None and found != sha256.lower():
        raise InputError(
            f"{path} has sha256 {found}, expected {sha256.lower()}; nothing was scored; name the file that is expected"
        )
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        torch.load(path, weights_only=True)  # torch-fidelity itself would run code that a file holds
        network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [FEATURES], feature_extractor_weights_path=str(path)
        )
    except ImportError as error:
        raise InputError(
            f"FID and KID need torch-fidelity, which is not installed ({error}); nothing was scored; pip install torch-fidelity"
        ) from error
    except (RuntimeError, KeyError, OSError, EOFError, pickle.UnpicklingError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} holds no weights of this Inception: {cause}; nothing was scored; name torch-fidelity's file"
        ) from error
    facts = {"network": "inception-v3-compat of torch-fidelity", "sha256": found, "resize": RESIZE}
    return Inception(network.eval().to(given_device()), facts)
